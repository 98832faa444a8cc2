//! `tagflow schemas`: JSON Schemas of the project's TOML files, for editors.
//!
//! The files themselves are read by hand, for the places of their problems; a test asks that reading which keys it knows,
//! so that it and what stands here cannot part.

mod files;
mod settings;
mod shape;

use std::io::Write;
use std::path::{Path, PathBuf};

pub(crate) use self::shape::{Key, Object};
use crate::catalog;
use crate::cli::{Format, OK, complain, print};
use crate::project::{SETTINGS_FILE, is_test_file};
use crate::tag;

use self::files::{folder, stream, tag as tag_header, tag_tests, view};
use self::settings::settings;

/// Arguments of `tagflow schemas`.
#[derive(Debug, clap::Args)]
pub struct SchemasArgs {
    /// The folder to write them to; `.taplo.toml` of a new project looks for them here.
    #[arg(long, short, default_value = FOLDER)]
    output: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Where a new project has them.
pub(crate) const FOLDER: &str = ".editor";

/// The name of each file, what it is about, and its keys.
fn schemas() -> [(&'static str, &'static str, Object); 6] {
    [
        ("tagflow.schema.json", "tagflow.toml", settings()),
        ("stream.schema.json", "schemas/NAME.toml of Tagflow", stream()),
        ("folder.schema.json", "tags/…/_folder.toml of Tagflow", folder()),
        ("test.schema.json", "tags/…/NAME.test.toml of Tagflow", tag_tests()),
        ("tag.schema.json", "the header of a tag of Tagflow", tag_header()),
        ("view.schema.json", "the header of a view of Tagflow", view()),
    ]
}

/// The keys of every kind of file.
pub(crate) struct Keys {
    settings: Object,
    stream: Object,
    folder: Object,
    tag: Object,
    view: Object,
    tests: Object,
}

impl Default for Keys {
    fn default() -> Self {
        Keys {
            settings: settings(),
            stream: stream(),
            folder: folder(),
            tag: tag_header(),
            view: view(),
            tests: tag_tests(),
        }
    }
}

impl Keys {
    /// Those of a file of the project, or of its header.
    pub(crate) fn of(&self, file: &Path) -> Option<&Object> {
        let is_sql = file.extension().is_some_and(|extension| extension == "sql");
        match file.iter().next()?.to_str()? {
            SETTINGS_FILE => Some(&self.settings),
            catalog::FOLDER => Some(if is_sql { &self.view } else { &self.stream }),
            tag::FOLDER if is_sql => Some(&self.tag),
            tag::FOLDER if file.ends_with(tag::FOLDER_FILE) => Some(&self.folder),
            tag::FOLDER if is_test_file(file) => Some(&self.tests),
            _ => None,
        }
    }
}

/// Writes the files; they are this program's own, so older ones are replaced.
pub fn run(args: &SchemasArgs, out: &mut dyn Write) -> u8 {
    match write(&args.output) {
        Ok(written) if args.format == Format::Json => print(out, &format!("{:#}\n", serde_json::json!(written))),
        Ok(written) => written.iter().for_each(|file| print(out, &format!("written {}\n", file.display()))),
        Err((file, error)) => return complain(format!("{}: {error}", file.display())),
    }
    OK
}

fn write(folder: &Path) -> Result<Vec<PathBuf>, (PathBuf, std::io::Error)> {
    std::fs::create_dir_all(folder).map_err(|error| (folder.to_owned(), error))?;
    let mut written = Vec::new();
    for (name, text) in texts() {
        let file = folder.join(name);
        std::fs::write(&file, text).map_err(|error| (file.clone(), error))?;
        written.push(file);
    }
    Ok(written)
}

/// Every file's name and text.
pub(crate) fn texts() -> impl Iterator<Item = (&'static str, String)> {
    schemas().into_iter().map(|(name, title, keys)| (name, format!("{:#}\n", keys.json_schema(title))))
}

#[cfg(test)]
mod tests;
