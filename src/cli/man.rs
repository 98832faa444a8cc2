//! `tagflow man DIR`: a manual page for the program and one for each of its commands.

use std::io::Write;
use std::path::PathBuf;

use clap::Command;

use crate::cli::{Format, OK, complain, report};

/// Arguments of `tagflow man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The folder, such as ~/.local/share/man/man1; it is made where missing.
    folder: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Writes the pages: `tagflow.1`, `tagflow-new-tag.1` …
pub fn run(args: &ManArgs, command: Command, out: &mut dyn Write) -> u8 {
    let folder = &args.folder;
    let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command, folder));
    match written {
        Ok(()) => {
            let words = format!("written manual pages to {}\n", folder.display());
            report(out, args.format, &words, &serde_json::json!({ "folder": folder.to_string_lossy() }));
            OK
        }
        Err(error) => complain(format!("{}: {error}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_command_that_is_shown_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let args = ManArgs { folder: folder.path().join("man1"), format: Format::Human };
        let mut out = Vec::new();
        assert_eq!(run(&args, crate::cli::Cli::command(), &mut out), OK);
        for command in crate::cli::Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let page = args.folder.join(format!("tagflow-{}.1", command.get_name()));
            let text = std::fs::read_to_string(&page).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{}", page.display());
        }
        assert!(args.folder.join("tagflow-new-tag.1").exists());
    }
}
