"""`tagflow lsp` as a process, spoken to by pygls, which takes nothing that is not in the protocol.

    scripts/lsp-client tests/lsp/session.py PATH_OF_TAGFLOW
"""

import asyncio
import faulthandler
import json
import logging
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient

TAGFLOW = os.path.abspath(sys.argv.pop())
# Longest wait for anything; planning in a debug build on a busy machine takes seconds.
PATIENCE = 120

WRONG = """/* tag
title = "Buyers"
owner = "growth"
*/
SELECT user_id, MAX(amuont) AS largest
FROM orders
WHERE user_id IS NOT NULL
GROUP BY user_id
"""
MENDABLE = """SELECT user_id, MAX(LCASE(category)) AS last
FROM orders
WHERE user_id IS NOT NULL AND status = "paid"
GROUP BY user_id
"""
MENDED = MENDABLE.replace("LCASE", "lower").replace('"paid"', "'paid'")


# The event loop of tests tells of every step that takes long.
logging.getLogger("asyncio").setLevel(logging.ERROR)


class Editor(LanguageClient):
    """An editor of a new project."""

    def __init__(self, root):
        super().__init__("editor", "1")
        self.root = root
        self.told = {}
        self.watched = None
        self.ended = asyncio.get_running_loop().create_future()
        self.changed = asyncio.Condition()
        self.versions = {}

        @self.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
        async def note(params):
            async with self.changed:
                self.told[params.uri] = params.diagnostics
                self.changed.notify_all()

        @self.feature(types.CLIENT_REGISTER_CAPABILITY)
        async def register(params):
            async with self.changed:
                self.watched = params.registrations
                self.changed.notify_all()

    def report_server_error(self, error, source):
        if not self.ended.done():
            self.ended.set_exception(AssertionError(f"the server said what no client can read: {error!r}"))

    async def server_exit(self, server):
        said = (await server.stderr.read()).decode()
        if not self.ended.done():
            self.ended.set_result((server.returncode, said))

    def uri(self, file):
        return (self.root / file).as_uri()

    def document(self, file):
        return types.TextDocumentIdentifier(uri=self.uri(file))

    async def start(self):
        # Elsewhere than in the project: the editor says where that is.
        await self.start_io(TAGFLOW, "lsp", cwd=tempfile.gettempdir())
        watches = types.DidChangeWatchedFilesClientCapabilities(dynamic_registration=True)
        capabilities = types.ClientCapabilities(
            workspace=types.WorkspaceClientCapabilities(did_change_watched_files=watches)
        )
        answer = await self.initialize_async(
            types.InitializeParams(capabilities=capabilities, root_uri=self.root.as_uri(), process_id=os.getpid())
        )
        self.initialized(types.InitializedParams())
        return answer.capabilities

    def write(self, file, text):
        """Opens a text, or types it in place of the one that is open."""
        version = self.versions[file] = self.versions.get(file, 0) + 1
        if version == 1:
            item = types.TextDocumentItem(uri=self.uri(file), language_id="sql", version=1, text=text)
            self.text_document_did_open(types.DidOpenTextDocumentParams(text_document=item))
            return
        document = types.VersionedTextDocumentIdentifier(uri=self.uri(file), version=version)
        change = types.TextDocumentContentChangeWholeDocument(text=text)
        self.text_document_did_change(
            types.DidChangeTextDocumentParams(text_document=document, content_changes=[change])
        )

    async def until(self, holds):
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(holds), PATIENCE)

    async def problems(self, file, holds):
        await self.until(lambda: self.uri(file) in self.told and holds(self.told[self.uri(file)]))
        return self.told[self.uri(file)]

    async def end(self):
        return await asyncio.wait_for(asyncio.shield(self.ended), PATIENCE)

    async def goodbye(self):
        await self.shutdown_async(None)
        self.exit(None)
        return await self.end()


def place(text, marked):
    """Where `marked` begins in a text that is ASCII."""
    before = text[: text.index(marked)]
    return types.Position(line=before.count("\n"), character=len(before) - before.rfind("\n") - 1)


def applied(text, edits):
    """The text after edits of an ASCII text, which an editor makes from the end."""
    lines = text.split("\n")
    start = lambda at: sum(len(line) + 1 for line in lines[: at.line]) + at.character
    for edit in sorted(edits, key=lambda edit: start(edit.range.start), reverse=True):
        text = text[: start(edit.range.start)] + edit.new_text + text[start(edit.range.end) :]
    return text


class Session(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        # An answer that never comes ends the whole run, and says where it was waited for.
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        self.folder = tempfile.TemporaryDirectory()
        root = Path(self.folder.name).resolve() / "shop of mine"
        subprocess.run([TAGFLOW, "init", root], check=True, capture_output=True)
        self.editor = Editor(root)
        self.capabilities = await self.editor.start()

    async def asyncTearDown(self):
        if not self.editor.ended.done():
            self.assertEqual((await self.editor.goodbye()), (0, ""))
        self.folder.cleanup()

    async def test_problems_follow_what_is_typed(self):
        file = "tags/consumption/buyers.sql"
        self.editor.write(file, WRONG)
        (told,) = await self.editor.problems(file, lambda told: told)
        self.assertEqual((told.code, told.severity, told.source), ("T0811", types.DiagnosticSeverity.Error, "tagflow"))
        self.assertEqual(told.range, types.Range(start=place(WRONG, "amuont"), end=place(WRONG, ") AS")))
        self.assertIn("did you mean `amount`?", told.message)
        # Half a query on the way to the right one.
        self.editor.write(file, WRONG[: WRONG.index("GROUP")] + "GROUP")
        await self.editor.problems(file, lambda told: told and told[0].code != "T0811")
        self.editor.write(file, WRONG.replace("amuont", "amount"))
        await self.editor.problems(file, lambda told: not told)
        self.assertFalse((self.editor.root / file).exists(), "nothing was saved")
        closed = types.DidCloseTextDocumentParams(text_document=self.editor.document(file))
        self.editor.write(file, WRONG)
        await self.editor.problems(file, lambda told: told)
        self.editor.text_document_did_close(closed)
        await self.editor.problems(file, lambda told: not told)

    async def test_questions_are_answered(self):
        file = "tags/consumption/buyers.sql"
        text = WRONG.replace("amuont", "amount")
        self.editor.write(file, text)
        await self.editor.problems(file, lambda told: not told)
        at = lambda marked: {"text_document": self.editor.document(file), "position": place(text, marked)}

        async def labels(marked):
            return {item.label for item in await self.editor.text_document_completion_async(types.CompletionParams(**at(marked)))}

        self.assertLessEqual({"orders", "tags.spend_30d", "tags.favourite_category"}, await labels("orders"))
        self.assertLessEqual({"amount", "category", "order_time", "max", "date_trunc", "CASE"}, await labels("amount"))
        self.assertLessEqual({"title", "owner", "readers", "state_limit"}, await labels("owner"))
        hover = await self.editor.text_document_hover_async(types.HoverParams(**at("amount")))
        self.assertIn("`amount` DECIMAL(12,2)", hover.contents.value)
        self.assertEqual(hover.range.start, place(text, "amount"))
        found = await self.editor.text_document_definition_async(types.DefinitionParams(**at("amount")))
        schema = (self.editor.root / "schemas/orders.toml").read_text()
        self.assertEqual((found.uri, found.range.start), (self.editor.uri("schemas/orders.toml"), place(schema, "amount  ")))
        options = types.FormattingOptions(tab_size=4, insert_spaces=True)
        laid_out = lambda: self.editor.text_document_formatting_async(
            types.DocumentFormattingParams(text_document=self.editor.document(file), options=options)
        )
        self.assertFalse(await laid_out())
        text = text.replace("SELECT", "select")
        self.editor.write(file, text)
        self.assertEqual(applied(text, await laid_out()), text.replace("select", "SELECT"))

    async def test_tests_of_tags_have_problems_and_keys_too(self):
        file = "tags/consumption/spend_30d.test.toml"
        text = '[[test]]\nname = "n"\n[[test.moment]]\nat = 2026-03-01T12:00:00\nrow = []\n'
        self.editor.write(file, text)
        told = await self.editor.problems(file, lambda told: told)
        self.assertEqual(told[0].range.start, place(text, "row"))
        self.assertIn('did you mean "rows"?', told[0].message)
        asked = types.CompletionParams(self.editor.document(file), place(text, "row"))
        keys = [item.label for item in await self.editor.text_document_completion_async(asked)]
        self.assertEqual(keys, ["at", "given", "rows", "changes", "dead_letters", "fails"])

    async def test_what_is_certain_is_mended_on_request(self):
        self.assertEqual(self.capabilities.code_action_provider.code_action_kinds, ("quickfix", "source.fixAll"))
        file = "tags/consumption/lasts.sql"
        self.editor.write(file, MENDABLE)
        await self.editor.problems(file, lambda told: len(told) == 2)

        async def actions(marked, only=None):
            at = place(MENDABLE, marked)
            context = types.CodeActionContext(diagnostics=self.editor.told[self.editor.uri(file)], only=only)
            return await self.editor.text_document_code_action_async(
                types.CodeActionParams(self.editor.document(file), types.Range(at, at), context)
            )

        edits = lambda action: action.edit.changes[self.editor.uri(file)]
        quick, all_of_file = await actions("LCASE")
        self.assertEqual((quick.title, quick.kind, quick.is_preferred), ("write `lower(category)` for `LCASE(category)`", "quickfix", True))
        self.assertEqual(quick.diagnostics[0].code, self.editor.told[self.editor.uri(file)][0].code)
        self.assertEqual(applied(MENDABLE, edits(quick)), MENDABLE.replace("LCASE", "lower"))
        self.assertEqual(all_of_file.title, "mend 2 problems of this file, as `tagflow check --fix` does")
        self.assertEqual(applied(MENDABLE, edits(all_of_file)), MENDED)
        self.assertEqual([action.kind for action in await actions("paid", ["quickfix"])], ["quickfix"])
        self.assertEqual([action.kind for action in await actions("user_id", ["source"])], ["source.fixAll"])
        self.assertFalse(await actions("user_id", ["quickfix"]))
        self.assertFalse(await actions("LCASE", ["refactor"]))
        # Of a text that is not planned yet nobody knows the places.
        self.editor.write(file, "\n" + MENDABLE)
        self.assertFalse(await actions("LCASE"))
        self.editor.write(file, MENDED)
        await self.editor.problems(file, lambda told: not told)

    async def test_files_that_change_outside_of_the_editor_count(self):
        await self.editor.until(lambda: self.editor.watched)
        (registration,) = self.editor.watched
        self.assertEqual(registration.method, types.WORKSPACE_DID_CHANGE_WATCHED_FILES)
        file = "tags/consumption/buyers.sql"
        (self.editor.root / file).write_text(WRONG)
        created = types.FileEvent(uri=self.editor.uri(file), type=types.FileChangeType.Created)
        self.editor.workspace_did_change_watched_files(types.DidChangeWatchedFilesParams(changes=[created]))
        (told,) = await self.editor.problems(file, lambda told: told)
        self.assertEqual(told.code, "T0811")

    async def test_what_is_not_of_the_project_is_nothing(self):
        elsewhere = types.TextDocumentIdentifier(uri=Path(tempfile.gettempdir(), "elsewhere.sql").as_uri())
        self.editor.write("../elsewhere.sql", "SELECT nothing")
        at = {"text_document": elsewhere, "position": types.Position(line=0, character=8)}
        self.assertIsNone(await self.editor.text_document_hover_async(types.HoverParams(**at)))
        self.assertIsNone(await self.editor.text_document_completion_async(types.CompletionParams(**at)))
        self.assertIsNone(await self.editor.text_document_definition_async(types.DefinitionParams(**at)))
        with self.assertRaises(JsonRpcException) as raised:
            await self.editor.text_document_rename_async(types.RenameParams(**at, new_name="other"))
        self.assertEqual(raised.exception.code, -32601)

    async def test_query_that_is_nested_deeply_is_a_problem_and_no_end(self):
        for depth in (100, 20000):
            file = f"tags/consumption/deep_{depth}.sql"
            nested = "(" * depth + "1" + ")" * depth
            self.editor.write(file, f"SELECT user_id, {nested} AS one FROM orders WHERE user_id IS NOT NULL")
            await self.editor.problems(file, lambda told: told)

    async def test_goodbye_is_said_in_two_words(self):
        await self.editor.shutdown_async(None)
        with self.assertRaises(JsonRpcException) as raised:
            await self.editor.text_document_hover_async(
                types.HoverParams(self.editor.document("tagflow.toml"), types.Position(0, 0))
            )
        self.assertEqual(raised.exception.code, -32600)
        self.editor.exit(None)
        self.assertEqual(await self.editor.end(), (0, ""))

    async def test_exit_alone_is_an_error(self):
        self.editor.exit(None)
        self.assertEqual(await self.editor.end(), (1, "error: the editor has gone without `shutdown`\n"))


class Bytes(unittest.TestCase):
    """What no library writes."""

    @staticmethod
    def framed(text):
        return f"Content-Length: {len(text)}\r\n\r\n{text}".encode()

    BEGUN = framed('{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":{}}}') + framed(
        '{"jsonrpc":"2.0","method":"initialized"}'
    )

    def served(self, written):
        ended = subprocess.run([TAGFLOW, "lsp"], input=written, capture_output=True, timeout=PATIENCE)
        ended.stdout, ended.stderr = ended.stdout.decode(), ended.stderr.decode()
        return ended

    def test_what_is_no_message_ends_the_server_with_its_reason(self):
        for before in (b"", self.BEGUN):
            for written, reason in [
                (b"\x00\xff\xfe garbage\n", "is not the head of a message"),
                (b"Content-Length: 999999999999999999\r\n\r\n{", "at most 67108864 bytes are read"),
                (b"Content-Length: 500\r\n\r\n{", "a message ends after 1 of 500 bytes"),
                (self.framed("[[[["), "a message is not JSON-RPC"),
                (self.framed('{"jsonrpc":"2.0","id":{},"method":7}'), "a message is not JSON-RPC"),
            ]:
                ended = self.served(before + written)
                self.assertEqual(ended.returncode, 1, ended.stderr)
                self.assertRegex(ended.stderr, f"^error: .*{reason}.*\n$")
        ended = self.served(self.BEGUN)
        self.assertEqual((ended.returncode, ended.stderr), (1, "error: the editor has gone without `shutdown`\n"))
        ended = self.served(b"")
        self.assertEqual((ended.returncode, ended.stderr.count("\n")), (1, 1), ended.stderr)

    def test_request_that_lacks_what_it_asks_about_is_refused(self):
        document = {"uri": Path("open.toml").resolve().as_uri()}
        opened = {**document, "languageId": "toml", "version": 1, "text": "a = 1"}
        messages = [
            {"method": "textDocument/didOpen", "params": {"textDocument": opened}},
            {"id": 2, "method": "textDocument/hover", "params": {"textDocument": document}},
            {"id": 3, "method": "textDocument/codeAction", "params": {"textDocument": document}},
            {"id": 4, "method": "textDocument/hover", "params": [1, None, "x"]},
            {"id": 5, "method": "shutdown"},
            {"method": "exit"},
        ]
        ended = self.served(self.BEGUN + b"".join(self.framed(json.dumps({"jsonrpc": "2.0", **told})) for told in messages))
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        for answer in ('"id":2,"error":{"code":-32602', '"id":3,"error":{"code":-32602', '"id":4,"result":null', '"id":5,"result":null'):
            self.assertIn(answer, ended.stdout)


unittest.main()
