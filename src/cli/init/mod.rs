//! `tagflow init`: a new project that runs at once, on a generated shop and SQLite.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::cli::{Format, OK, USAGE, complain, report, schemas};

/// Arguments of `tagflow init`.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The folder; it is made where missing.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Files of a new project.
const FILES: [(&str, &str); 12] = [
    ("tagflow.toml", include_str!("tagflow.toml")),
    ("schemas/orders.toml", include_str!("orders.toml")),
    ("tags/consumption/_folder.toml", include_str!("_folder.toml")),
    ("tags/consumption/spend_30d.sql", include_str!("spend_30d.sql")),
    ("tags/consumption/spend_30d.test.toml", include_str!("spend_30d.test.toml")),
    ("tags/consumption/favourite_category.sql", include_str!("favourite_category.sql")),
    ("README.md", include_str!("README.md")),
    (".gitignore", include_str!("gitignore")),
    (".github/workflows/tagflow.yml", include_str!("github.yml")),
    (".gitlab-ci.yml", include_str!("gitlab.yml")),
    (".taplo.toml", include_str!("taplo.toml")),
    (".vscode/extensions.json", include_str!("extensions.json")),
];

/// Writes the files; none that is there is touched.
pub fn run(args: &InitArgs, out: &mut dyn Write) -> u8 {
    if args.path.join("tagflow.toml").exists() {
        complain(format!("there is a project in {} already", args.path.display()));
        return USAGE;
    }
    let schemas = schemas::texts().map(|(name, text)| (format!("{}/{name}", schemas::FOLDER), text));
    let files = FILES.iter().map(|(name, text)| (name.to_string(), text.to_string()));
    let (mut words, mut written, mut kept) = (String::new(), Vec::new(), Vec::new());
    for (name, text) in files.chain(schemas) {
        let path = args.path.join(&name);
        if path.exists() {
            words.push_str(&format!("kept    {name}\n"));
            kept.push(name);
            continue;
        }
        if let Err(error) = write(&path, &text) {
            return complain(format!("{}: {error}", path.display()));
        }
        words.push_str(&format!("written {name}\n"));
        written.push(name);
    }
    let place = if args.path == Path::new(".") { String::new() } else { format!("cd {} && ", args.path.display()) };
    words.push_str(&format!(
        "\nnext:  {place}tagflow check && tagflow run\nthen:  tagflow show 10001, in another terminal\n"
    ));
    report(out, args.format, &words, &serde_json::json!({ "written": written, "kept": kept }));
    OK
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{ProjectArgs, load};
    use crate::plan::sql::format::format;

    #[test]
    fn new_project_has_no_problems_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("README.md"), "my own").unwrap();
        let mut out = Vec::new();
        assert_eq!(run(&InitArgs { path: path.clone(), format: Format::Human }, &mut out), OK);
        assert_eq!(fs::read_to_string(path.join("README.md")).unwrap(), "my own");
        let (loaded, desired) = load(&ProjectArgs { project: path.clone(), profile: None });
        assert_eq!(loaded.diagnostics, []);
        assert_eq!(desired.unwrap().tags.len(), 2);
        for (name, text) in FILES.iter().filter(|(name, _)| name.ends_with(".sql")) {
            assert_eq!(format(Path::new(name), text).as_deref(), Ok(*text), "as `tagflow fmt` leaves it");
        }
        assert!(path.join(".editor/tagflow.schema.json").exists(), "where .taplo.toml looks for it");
        assert_eq!(run(&InitArgs { path, format: Format::Human }, &mut out), USAGE);
    }
}
