//! `tagflow checkpoint`: what there is, whether it can be read, and going back to an older one.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::cli::{FAILED, Format, OK, ProjectArgs, complain, no_project, print, report};
use crate::config::Config;
use crate::engine::checkpoint::{CheckpointError, Checkpoints, Manifest, Piece};
use crate::engine::stop::Stop;
use crate::file_lock::{self, Asked};
use crate::project;
use crate::sink::lease::Owner;

/// Arguments of `tagflow checkpoint`.
#[derive(Debug, clap::Args)]
pub struct CheckpointArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List checkpoints, the newest first.
    List {
        #[command(flatten)]
        project: ProjectArgs,
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Read every file of every checkpoint: lengths, checksums, rows.
    Verify {
        /// Only the checkpoint of this epoch.
        epoch: Option<u64>,
        #[command(flatten)]
        project: ProjectArgs,
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Make an older checkpoint the newest by dropping those after it; for use while no daemon runs.
    Restore {
        /// The epoch of the checkpoint.
        epoch: u64,
        #[command(flatten)]
        project: ProjectArgs,
        /// Say what would happen, and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// One checkpoint, as programs read it.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    epoch: u64,
    /// Milliseconds since the Unix epoch.
    written_at: i64,
    /// The engine's clock, milliseconds since the Unix epoch.
    clock: i64,
    /// Of all files that it needs.
    bytes: u64,
    /// Of those of its files that no older checkpoint needs.
    new_bytes: u64,
    tags: Vec<&'a str>,
}

/// What reading a checkpoint gave.
#[derive(Debug, Serialize)]
struct Verdict {
    /// `None` where not even that can be read.
    epoch: Option<u64>,
    files: usize,
    rows: usize,
    /// What is wrong.
    problem: Option<String>,
}

/// Runs one of the commands.
pub fn run(args: &CheckpointArgs, out: &mut dyn Write) -> u8 {
    let (Command::List { project, .. } | Command::Verify { project, .. } | Command::Restore { project, .. }) =
        &args.command;
    let Some(project) = project::load(&project.project, project.profile.as_deref()).project else {
        return complain(no_project(&project.project));
    };
    let config = &project.config;
    let outcome = Checkpoints::open(&config.engine, &Arc::new(Stop::new(Arc::default()))).and_then(|checkpoints| {
        match &args.command {
            Command::List { format, .. } => list(&checkpoints, *format, out),
            Command::Verify { epoch, format, .. } => verify(&checkpoints, *epoch, *format, out),
            Command::Restore { epoch, dry_run, format, .. } => {
                restore(&checkpoints, config, *epoch, (*dry_run, *format), out)
            }
        }
    });
    outcome.unwrap_or_else(complain)
}

fn list(checkpoints: &Checkpoints, format: Format, out: &mut dyn Write) -> Result<u8, CheckpointError> {
    let (mut sound, mut problems) = (Vec::new(), Vec::new());
    for found in checkpoints.manifests()? {
        match found {
            Ok(manifest) => sound.push(manifest),
            Err(error) => problems.push(error.to_string()),
        }
    }
    problems.extend(checkpoints.of_old_formats()?.iter().map(ToString::to_string));
    let listed: Vec<Listed<'_>> =
        sound.iter().enumerate().map(|(index, manifest)| Listed::of(manifest, &sound[index + 1..])).collect();
    let text = match format {
        Format::Json => json(&serde_json::json!({ "checkpoints": listed, "problems": problems })),
        Format::Human => {
            let problems: String = problems.iter().map(|problem| format!("! {problem}\n")).collect();
            format!("{}{problems}", table(&listed))
        }
    };
    print(out, &text);
    Ok(if problems.is_empty() { OK } else { FAILED })
}

impl<'a> Listed<'a> {
    fn of(manifest: &'a Manifest, older: &[Manifest]) -> Self {
        let is_new = |name: &str| !older.iter().flat_map(Manifest::segments).any(|segment| segment.name == name);
        Listed {
            epoch: manifest.position.epoch,
            written_at: manifest.written_at,
            clock: manifest.position.clock / 1_000_000,
            bytes: manifest.bytes(),
            new_bytes: manifest.segments().filter(|segment| is_new(&segment.name)).map(|segment| segment.bytes).sum(),
            tags: manifest.position.tags.keys().map(String::as_str).collect(),
        }
    }
}

fn table(listed: &[Listed<'_>]) -> String {
    if listed.is_empty() {
        return "there is no checkpoint\n".to_string();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["epoch", "age", "clock", "bytes", "new bytes", "tags"]);
    let now = chrono::Utc::now().timestamp_millis();
    for one in listed {
        let age = Duration::from_secs(u64::try_from((now - one.written_at) / 1000).unwrap_or(0));
        let clock = chrono::DateTime::from_timestamp_millis(one.clock).map_or_else(String::new, |at| at.to_rfc3339());
        table.add_row([
            one.epoch.to_string(),
            humantime::format_duration(age).to_string(),
            clock,
            ByteSize(one.bytes).to_string(),
            ByteSize(one.new_bytes).to_string(),
            one.tags.len().to_string(),
        ]);
    }
    for column in [0, 1, 3, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{table}\n")
}

fn verify(
    checkpoints: &Checkpoints,
    only: Option<u64>,
    format: Format,
    out: &mut dyn Write,
) -> Result<u8, CheckpointError> {
    let manifests = match only {
        Some(epoch) => vec![checkpoints.manifest(epoch)],
        None => checkpoints.manifests()?,
    };
    let mut verdicts = Vec::new();
    for found in manifests {
        let (epoch, outcome) = match found {
            Ok(manifest) => {
                (Some(manifest.position.epoch), count_rows(checkpoints, &manifest).map(|rows| (manifest, rows)))
            }
            Err(error) => (None, Err(error)),
        };
        // A daemon that runs drops checkpoints: what is gone by now was no damage.
        if outcome.is_err() && epoch.is_some_and(|epoch| checkpoints.manifest(epoch).is_err()) {
            continue;
        }
        verdicts.push(match outcome {
            Ok((manifest, rows)) => Verdict { epoch, files: manifest.segments().count(), rows, problem: None },
            Err(error) => Verdict { epoch, files: 0, rows: 0, problem: Some(error.to_string()) },
        });
    }
    let text = match format {
        Format::Json => json(&verdicts),
        Format::Human => verdicts.iter().map(Verdict::line).collect(),
    };
    print(out, &text);
    Ok(if verdicts.iter().all(|verdict| verdict.problem.is_none()) { OK } else { FAILED })
}

/// Reads all of a checkpoint; the rows of its state.
fn count_rows(checkpoints: &Checkpoints, manifest: &Manifest) -> Result<usize, CheckpointError> {
    let rows = |piece: Piece<'_>| piece.parts.iter().map(|part| part.batch.num_rows()).sum::<usize>();
    checkpoints.pieces(manifest).map(|piece| piece.map(rows)).sum()
}

impl Verdict {
    fn line(&self) -> String {
        let epoch = self.epoch.map_or_else(|| "?".to_string(), |epoch| epoch.to_string());
        match &self.problem {
            None => format!("{epoch:>12}  sound: {} files, {} rows\n", self.files, self.rows),
            Some(problem) => format!("{epoch:>12}  DAMAGED: {problem}\n"),
        }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).map_or_else(|error| error.to_string(), |text| format!("{text}\n"))
}

fn restore(
    checkpoints: &Checkpoints,
    config: &Config,
    epoch: u64,
    (dry_run, format): (bool, Format),
    out: &mut dyn Write,
) -> Result<u8, CheckpointError> {
    let path = config.engine.state_dir.join("lock");
    let locked =
        std::fs::create_dir_all(&config.engine.state_dir).and_then(|()| file_lock::ask(&path, &Owner::new().to_text()));
    let _lock = match locked {
        Ok(Asked::Ours(lock, _)) => lock,
        Ok(Asked::Held(text)) => {
            let owner =
                Owner::from_text(&text).map_or_else(|| "another process".to_string(), |owner| owner.to_string());
            return Ok(complain(format!("{owner} is using the state: stop it first")));
        }
        Err(error) => return Ok(complain(format!("{}: {error}", path.display()))),
    };
    // What cannot be read is no place to go back to.
    let manifest = checkpoints.manifest(epoch)?;
    count_rows(checkpoints, &manifest)?;
    let newer = checkpoints.newer_than(epoch)?;
    if newer.is_empty() {
        let words = format!("the checkpoint of epoch {epoch} is the newest already\n");
        let object = serde_json::json!({ "newest": epoch, "dropped": [], "dry_run": dry_run });
        report(out, format, &words, &object);
        return Ok(OK);
    }
    if !dry_run {
        checkpoints.go_back_to(epoch)?;
    }
    let dropped: Vec<String> = newer.iter().map(u64::to_string).collect();
    let (is, are) = if dry_run { ("would be", "would be") } else { ("is", "are") };
    report(
        out,
        format,
        &format!(
            "the checkpoint of epoch {epoch} {is} the newest; {} {are} dropped: {}\n\
             The next start loads it and goes through the records after it again, in silence, up to what the tables show:\n\
             no value in a table changes by that. Tags that it does not hold, or whose tables were filled again since, are\n\
             filled anew; so are all tags where a topic no longer has those records.\n",
            dropped.len(),
            dropped.join(", ")
        ),
        &serde_json::json!({ "newest": epoch, "dropped": newer, "dry_run": dry_run }),
    );
    Ok(OK)
}
