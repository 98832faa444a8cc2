//! `tagflow lsp`: a language server over standard input and output, for any editor that speaks the protocol.
//!
//! Enters: the files on disk, and over them the texts that are open and perhaps not saved. Leaves: the diagnostics of
//! `tagflow check`, from the same loading and planning, and what is known at a place: completion, hover, definition.
//! Planning runs on a thread of its own over the newest texts; questions are answered out of the last that was planned.

mod analysis;
mod answers;
mod place;
mod scan;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lsp_server::{Connection, Message, Notification, Request, Response};
use lsp_types::notification::{
    DidChangeTextDocument, DidChangeWatchedFiles, DidCloseTextDocument, DidOpenTextDocument, DidSaveTextDocument,
    Notification as _, PublishDiagnostics,
};
use lsp_types::request::{Completion, Formatting, GotoDefinition, HoverRequest, Request as _};
use lsp_types::{
    CompletionOptions, Diagnostic, HoverProviderCapability, OneOf, PublishDiagnosticsParams, ServerCapabilities,
    TextDocumentSyncCapability, TextDocumentSyncKind,
};

use self::analysis::{Analysis, analyse};
use self::place::{file_of, uri_of};
use crate::cli::{OK, ProjectArgs, complain};

/// Arguments of `tagflow lsp`.
#[derive(Debug, clap::Args)]
pub struct LspArgs {
    #[command(flatten)]
    project: ProjectArgs,
}

/// How long nothing must be typed before it is planned.
const QUIET: Duration = Duration::from_millis(150);
/// What the protocol says of a request that no server like this one knows.
const METHOD_NOT_FOUND: i32 = -32601;
/// What it says of one whose parameters cannot be read.
const INVALID_PARAMS: i32 = -32602;

/// Serves the editor until it says goodbye.
pub fn run(args: &LspArgs) -> u8 {
    let (connection, threads) = Connection::stdio();
    let served = serve(connection, &args.project);
    // The thread that writes ends once nobody can send any more, which is so now.
    match served.and_then(|()| threads.join().map_err(|error| error.to_string())) {
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
/// What the other side did that the protocol does not allow.
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
        .spawn(move || planner.run(&changes))
        .map_err(|error| error.to_string())?;
    let mut server = Server { connection, root, open: Texts::new(), changed, analysis };
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
        while let Ok(message) = self.connection.receiver.recv() {
            match message {
                Message::Request(request) => {
                    if self.connection.handle_shutdown(&request).map_err(|error| error.to_string())? {
                        return Ok(());
                    }
                    let response = self.answer(request);
                    if self.connection.sender.send(response.into()).is_err() {
                        return Ok(());
                    }
                }
                Message::Notification(notification) => self.note(notification),
                Message::Response(_) => {}
            }
        }
        Ok(())
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
        let wants_place = request.method != Formatting::METHOD;
        let known = [Completion::METHOD, HoverRequest::METHOD, GotoDefinition::METHOD, Formatting::METHOD];
        if !known.contains(&request.method.as_str()) {
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
