//! `tagflow lsp`: a language server over standard input and output, for any editor that speaks the protocol.
//!
//! Enters: the files on disk, and over them the texts that are open and perhaps not saved. Leaves: the diagnostics of
//! `tagflow check`, from the same loading and planning, with the mends of `--fix`, and what is known at a place: completion,
//! hover, definition.
//! Planning runs on a thread of its own over the newest texts; questions are answered out of the last that was planned.

mod analysis;
mod answers;
mod mends;
mod pipe;
mod place;
mod scan;

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lsp_server::{Connection, Message, Notification, Request, Response};
use lsp_types::notification::{
    DidChangeTextDocument, DidChangeWatchedFiles, DidCloseTextDocument, DidOpenTextDocument, DidSaveTextDocument, Exit,
    Notification as _, PublishDiagnostics,
};
use lsp_types::request::{
    CodeActionRequest, Completion, Formatting, GotoDefinition, HoverRequest, RegisterCapability, Request as _, Shutdown,
};
use lsp_types::{
    CodeActionKind, CodeActionOptions, CodeActionParams, CodeActionProviderCapability, CompletionOptions, Diagnostic,
    DidChangeWatchedFilesRegistrationOptions, FileSystemWatcher, GlobPattern, HoverProviderCapability, OneOf,
    PublishDiagnosticsParams, Registration, RegistrationParams, ServerCapabilities, TextDocumentSyncCapability,
    TextDocumentSyncKind,
};

use self::analysis::{Analysis, analyse};
use self::place::{file_of, uri_of};
use crate::cli::{OK, ProjectArgs, complain};
use crate::engine::desired::PLANNING_STACK;

/// Arguments of `tagflow lsp`.
#[derive(Debug, clap::Args)]
pub struct LspArgs {
    #[command(flatten)]
    project: ProjectArgs,
}

/// How long nothing must be typed before it is planned.
const QUIET: Duration = Duration::from_millis(150);
/// The files that a project is read from.
const WATCHED: &str = "**/*.{sql,toml,avsc,desc}";
/// What the protocol says of a request after `shutdown`.
const INVALID_REQUEST: i32 = -32600;
/// What it says of one that no server like this one knows.
const METHOD_NOT_FOUND: i32 = -32601;
/// What it says of one whose parameters cannot be read.
const INVALID_PARAMS: i32 = -32602;

/// Serves the editor until it says goodbye.
pub fn run(args: &LspArgs) -> u8 {
    let (connection, pipe) = match pipe::connect(BufReader::new(std::io::stdin()), std::io::stdout()) {
        Ok(connected) => connected,
        Err(error) => return complain(error),
    };
    let served = serve(connection, &args.project);
    // A broken pipe is why the server had to end.
    match pipe.close().and(served) {
        Ok(()) => OK,
        Err(message) => complain(message),
    }
}

/// The texts that are open, by file below the project's folder.
type Texts = BTreeMap<PathBuf, String>;

/// What questions are answered out of.
struct Server {
    connection: Connection,
    root: PathBuf,
    open: Texts,
    /// Where the newest texts go to be planned.
    changed: Sender<Texts>,
    analysis: Arc<Mutex<Arc<Analysis>>>,
}

/// Speaks the protocol over a connection.
///
/// # Errors
/// What the other side did that the protocol does not allow, such as to go without a goodbye.
fn serve(connection: Connection, project: &ProjectArgs) -> Result<(), String> {
    let capabilities = ServerCapabilities {
        text_document_sync: Some(TextDocumentSyncCapability::Kind(TextDocumentSyncKind::FULL)),
        completion_provider: Some(CompletionOptions {
            trigger_characters: Some(vec![".".to_string(), "\"".to_string()]),
            ..CompletionOptions::default()
        }),
        hover_provider: Some(HoverProviderCapability::Simple(true)),
        definition_provider: Some(OneOf::Left(true)),
        document_formatting_provider: Some(OneOf::Left(true)),
        code_action_provider: Some(CodeActionProviderCapability::Options(CodeActionOptions {
            code_action_kinds: Some(vec![CodeActionKind::QUICKFIX, CodeActionKind::SOURCE_FIX_ALL]),
            ..CodeActionOptions::default()
        })),
        ..ServerCapabilities::default()
    };
    let capabilities = serde_json::to_value(capabilities).map_err(|error| error.to_string())?;
    let asked = connection.initialize(capabilities).map_err(|error| error.to_string())?;
    let root = root_of(&asked, &project.project);
    let (changed, changes) = channel();
    let analysis = Arc::new(Mutex::new(Arc::new(Analysis::default())));
    let planner = Planner {
        root: root.clone(),
        profile: project.profile.clone(),
        out: connection.sender.clone(),
        analysis: Arc::clone(&analysis),
        told: BTreeSet::new(),
    };
    let planning = std::thread::Builder::new()
        .name("plan".to_string())
        .stack_size(PLANNING_STACK)
        .spawn(move || planner.run(&changes))
        .map_err(|error| error.to_string())?;
    let mut server = Server { connection, root, open: Texts::new(), changed, analysis };
    let watches = asked.pointer("/capabilities/workspace/didChangeWatchedFiles/dynamicRegistration");
    if watches.is_some_and(|watches| watches == true) {
        server.ask_to_watch();
    }
    server.plan();
    let served = server.run();
    // The planner ends with the channel, and holds a sender of the connection until then.
    drop(server);
    planning.join().map_err(|_| "the planner has panicked".to_string())?;
    served
}

/// The folder of tagflow.toml: what the command line says, else the editor's first folder.
fn root_of(asked: &serde_json::Value, given: &Path) -> PathBuf {
    let folders = asked.get("workspaceFolders").and_then(|folders| folders.get(0)?.get("uri")?.as_str());
    let folder = folders.or_else(|| asked.get("rootUri")?.as_str());
    let folder = folder.and_then(|uri| url::Url::parse(uri).ok()?.to_file_path().ok());
    let root = match folder {
        Some(folder) if given == Path::new(".") => folder,
        _ => given.to_owned(),
    };
    // Editors name files by where they really are.
    root.canonicalize().unwrap_or(root)
}

impl Server {
    fn run(&mut self) -> Result<(), String> {
        let mut is_shut_down = false;
        while let Ok(message) = self.connection.receiver.recv() {
            match message {
                Message::Request(request) => {
                    let response = if is_shut_down {
                        let told = format!("{} comes after {}", request.method, Shutdown::METHOD);
                        Response::new_err(request.id, INVALID_REQUEST, told)
                    } else if request.method == Shutdown::METHOD {
                        is_shut_down = true;
                        Response::new_ok(request.id, ())
                    } else {
                        self.answer(request)
                    };
                    self.send(response);
                }
                Message::Notification(told) if told.method == Exit::METHOD => break,
                Message::Notification(told) if !is_shut_down => self.note(told),
                Message::Notification(_) | Message::Response(_) => {}
            }
        }
        if is_shut_down { Ok(()) } else { Err(format!("the editor has gone without `{}`", Shutdown::METHOD)) }
    }

    fn send(&self, message: impl Into<Message>) {
        // Whoever writes goes on until nobody can send any more.
        let _ = self.connection.sender.send(message.into());
    }

    /// Asks the editor to tell of files that change outside of it, as by git.
    fn ask_to_watch(&self) {
        let glob_pattern = GlobPattern::String(WATCHED.to_string());
        let options =
            DidChangeWatchedFilesRegistrationOptions { watchers: vec![FileSystemWatcher { glob_pattern, kind: None }] };
        let registration = Registration {
            id: "files".to_string(),
            method: DidChangeWatchedFiles::METHOD.to_string(),
            register_options: serde_json::to_value(options).ok(),
        };
        let params = RegistrationParams { registrations: vec![registration] };
        self.send(Request::new("watch".to_string().into(), RegisterCapability::METHOD.to_string(), params));
    }

    fn plan(&self) {
        // A planner that is gone is told of when the server ends.
        let _ = self.changed.send(self.open.clone());
    }

    /// What the editor says of its texts.
    fn note(&mut self, notification: Notification) {
        let document = |value: &serde_json::Value| {
            let uri = value.get("textDocument")?.get("uri")?.as_str()?;
            file_of(&self.root, uri)
        };
        let params = notification.params;
        match notification.method.as_str() {
            DidOpenTextDocument::METHOD => {
                let text = params.pointer("/textDocument/text").and_then(|text| text.as_str());
                if let (Some(file), Some(text)) = (document(&params), text) {
                    self.open.insert(file, text.to_string());
                }
            }
            DidChangeTextDocument::METHOD => {
                // Of several changes of the whole text the last one holds.
                let changes = params.get("contentChanges").and_then(|changes| changes.as_array());
                let text = changes.and_then(|changes| changes.last()?.get("text")?.as_str());
                if let (Some(file), Some(text)) = (document(&params), text) {
                    self.open.insert(file, text.to_string());
                }
            }
            DidCloseTextDocument::METHOD => {
                if let Some(file) = document(&params) {
                    self.open.remove(&file);
                }
            }
            DidSaveTextDocument::METHOD | DidChangeWatchedFiles::METHOD => {}
            _ => return,
        }
        self.plan();
    }

    /// Answers one request; whatever it asks about, it gets an answer.
    fn answer(&self, request: Request) -> Response {
        let analysis = Arc::clone(&self.analysis.lock().unwrap_or_else(PoisonError::into_inner));
        let at = |params: &serde_json::Value| {
            let uri = params.pointer("/textDocument/uri")?.as_str()?;
            let file = file_of(&self.root, uri)?;
            let text = self.open.get(&file).or_else(|| analysis.sources.get(&file))?.clone();
            Some((file, text))
        };
        let (id, params) = (request.id, request.params);
        let position = params.get("position").and_then(|place| serde_json::from_value(place.clone()).ok());
        let asks_of_place = [Completion::METHOD, HoverRequest::METHOD, GotoDefinition::METHOD];
        let wants_place = asks_of_place.contains(&request.method.as_str());
        if !wants_place && ![Formatting::METHOD, CodeActionRequest::METHOD].contains(&request.method.as_str()) {
            return Response::new_err(id, METHOD_NOT_FOUND, format!("{} is not served", request.method));
        }
        let Some((file, text)) = at(&params) else {
            // A file of another folder is nobody's mistake.
            return Response::new_ok(id, serde_json::Value::Null);
        };
        if wants_place && position.is_none() {
            return Response::new_err(id, INVALID_PARAMS, "there is no position".to_string());
        }
        let byte = place::byte(&text, position.unwrap_or_default());
        match request.method.as_str() {
            Completion::METHOD => Response::new_ok(id, answers::completion(&analysis, &file, &text, byte)),
            HoverRequest::METHOD => Response::new_ok(id, answers::hover(&analysis, &file, &text, byte)),
            GotoDefinition::METHOD => {
                Response::new_ok(id, answers::definition(&analysis, &self.root, &file, &text, byte))
            }
            CodeActionRequest::METHOD => match serde_json::from_value::<CodeActionParams>(params) {
                Ok(asked) => Response::new_ok(id, mends::actions(&analysis, &self.root, &file, &text, &asked)),
                Err(error) => Response::new_err(id, INVALID_PARAMS, error.to_string()),
            },
            _ => Response::new_ok(id, answers::formatting(&file, &text)),
        }
    }
}

/// Plans the newest texts again and again.
struct Planner {
    root: PathBuf,
    profile: Option<String>,
    out: crossbeam_channel::Sender<Message>,
    analysis: Arc<Mutex<Arc<Analysis>>>,
    /// Files of which problems were told: they are told when they have none any more.
    told: BTreeSet<PathBuf>,
}

impl Planner {
    fn run(mut self, changes: &Receiver<Texts>) {
        while let Ok(mut texts) = changes.recv() {
            loop {
                match changes.recv_timeout(QUIET) {
                    Ok(newer) => texts = newer,
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            let analysis = Arc::new(analyse(&self.root, self.profile.as_deref(), &texts));
            *self.analysis.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&analysis);
            if !self.publish(&analysis, &texts) {
                return;
            }
        }
    }

    /// Tells all problems; false when nobody listens any more.
    fn publish(&mut self, analysis: &Analysis, open: &Texts) -> bool {
        let mut by_file: BTreeMap<PathBuf, Vec<Diagnostic>> = BTreeMap::new();
        for told in &analysis.diagnostics {
            let text = analysis.sources.get(&told.file).map_or("", String::as_str);
            by_file.entry(told.file.clone()).or_default().push(place::diagnostic(told, text));
        }
        let mended = std::mem::take(&mut self.told);
        self.told = by_file.keys().cloned().collect();
        for file in mended.into_iter().chain(open.keys().cloned()) {
            by_file.entry(file).or_default();
        }
        by_file.into_iter().all(|(file, diagnostics)| {
            let Some(uri) = uri_of(&self.root, &file) else { return true };
            let params = PublishDiagnosticsParams { uri, diagnostics, version: None };
            self.out.send(Notification::new(PublishDiagnostics::METHOD.to_string(), params).into()).is_ok()
        })
    }
}

#[cfg(test)]
mod tests;
