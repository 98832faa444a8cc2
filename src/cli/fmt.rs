//! `tagflow fmt`: the SQL of tags, views and functions in one layout, their headers and comments as they are.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::{FAILED, Format, OK, complain, no_project, print};
use crate::plan::sql::format::format;
use crate::project::{self, SETTINGS_FILE};

/// Arguments of `tagflow fmt`.
#[derive(Debug, clap::Args)]
pub struct FmtArgs {
    /// The files; all tags, views and functions of the project where none is named.
    files: Vec<PathBuf>,
    /// Change nothing; exit code 1 where something would change.
    #[arg(long)]
    check: bool,
    /// The folder of tagflow.toml.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    project: PathBuf,
    /// How to print.
    #[arg(long = "format", value_enum, default_value_t)]
    shown: Format,
}

/// Lays the files out.
pub fn run(args: &FmtArgs, out: &mut dyn Write) -> u8 {
    let texts = match texts(args) {
        Ok(texts) => texts,
        Err(message) => return complain(message),
    };
    let total = texts.len();
    let (mut changed, mut left) = (Vec::new(), Vec::new());
    for (file, text) in texts {
        match format(&file, &text) {
            Ok(laid_out) if laid_out == text => {}
            Ok(laid_out) => {
                if !args.check
                    && let Err(error) = std::fs::write(&file, laid_out)
                {
                    left.push((file, error.to_string()));
                    continue;
                }
                changed.push(file);
            }
            Err(reason) => left.push((file, reason)),
        }
    }
    match args.shown {
        Format::Human => {
            let verb = if args.check { "would change" } else { "changed" };
            changed.iter().for_each(|file| print(out, &format!("{verb} {}\n", file.display())));
            left.iter().for_each(|(file, reason)| {
                complain(format!("{} is left as it is: {reason}", file.display()));
            });
            print(out, &format!("{} of {total} files {verb}\n", changed.len()));
        }
        Format::Json => {
            let shown = |file: &PathBuf| file.display().to_string();
            let changed: Vec<_> = changed.iter().map(shown).collect();
            let left: Vec<_> =
                left.iter().map(|(file, reason)| json!({ "file": shown(file), "reason": reason })).collect();
            print(out, &format!("{:#}\n", json!({ "files": total, "changed": changed, "left": left })));
        }
    }
    if left.is_empty() && (changed.is_empty() || !args.check) { OK } else { FAILED }
}

/// The files with their texts.
fn texts(args: &FmtArgs) -> Result<BTreeMap<PathBuf, String>, String> {
    if args.files.is_empty() {
        if !args.project.join(SETTINGS_FILE).exists() {
            return Err(no_project(&args.project));
        }
        let loaded = project::load(&args.project, None);
        let is_sql = |file: &Path| file.extension().is_some_and(|extension| extension == "sql");
        let sources = loaded.sources.into_iter().filter(|(file, _)| is_sql(file));
        return Ok(sources.map(|(file, text)| (args.project.join(file), text)).collect());
    }
    let read = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok((file.clone(), text))
    };
    args.files.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_on(folder: &Path, check: bool) -> (u8, String) {
        std::fs::write(folder.join(SETTINGS_FILE), "").unwrap();
        let mut out = Vec::new();
        let args = FmtArgs { files: Vec::new(), check, project: folder.to_owned(), shown: Format::Human };
        let code = run(&args, &mut out);
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn check_changes_nothing_and_a_second_run_finds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tags")).unwrap();
        let file = folder.path().join("tags/a.sql");
        let text = "/* tag title = 'x' */\nselect user_id from orders group by user_id\n";
        std::fs::write(&file, text).unwrap();
        let (code, out) = run_on(folder.path(), true);
        assert_eq!((code, out), (FAILED, format!("would change {}\n1 of 1 files would change\n", file.display())));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        assert_eq!(run_on(folder.path(), false), (OK, format!("changed {}\n1 of 1 files changed\n", file.display())));
        let laid_out = std::fs::read_to_string(&file).unwrap();
        assert_eq!(laid_out, "/* tag title = 'x' */\nSELECT user_id\nFROM orders\nGROUP BY user_id\n");
        assert_eq!(run_on(folder.path(), true), (OK, "0 of 1 files would change\n".to_string()));
    }

    #[test]
    fn file_that_cannot_be_laid_out_is_left_and_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tags")).unwrap();
        std::fs::write(folder.path().join("tags/a.sql"), "SELECT 'open").unwrap();
        assert_eq!(run_on(folder.path(), false), (FAILED, "0 of 1 files changed\n".to_string()));
        assert_eq!(std::fs::read_to_string(folder.path().join("tags/a.sql")).unwrap(), "SELECT 'open");
    }
}
