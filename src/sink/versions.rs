//! The versions of tags as the registry remembers them: what was live when, why, and where its table is.
//!
//! Enters: what begins. Leaves: rows of texts for `_tagflow_versions`, and back. Knows no store's spelling.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, NaiveDateTime};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize, Serializer};

use super::registry::{Texts, millis_of, number, required};
use super::{TagProgress, TagRegistration};
use crate::delta::Lost;

/// Why a version goes live, and what it can be made of again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Who wrote it, or went back to it.
    pub author: Option<String>,
    /// The subject of the commit, or what has changed.
    pub reason: String,
    /// The text of every file that makes the tag what it is, but those of streams.
    #[serde(serialize_with = "by_names")]
    pub files: BTreeMap<PathBuf, String>,
}

impl Origin {
    fn files_json(&self) -> String {
        by_names(&self.files, serde_json::value::Serializer).expect("they are texts").to_string()
    }
}

/// Files by their paths as text, which is what JSON has.
fn by_names<S: Serializer>(files: &BTreeMap<PathBuf, String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(files.iter().map(|(file, text)| (file.to_string_lossy(), text)))
}

/// One time during which a version of a tag was, or is, the one that everybody reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The tag.
    pub tag: String,
    /// Counts up with every fill; one that was gone back to has its number again.
    pub version: u64,
    /// The fingerprint of its plan.
    pub fingerprint: String,
    /// Milliseconds since the Unix epoch, by the store's clock.
    pub live_from: i64,
    /// `None` for the one that is live.
    pub live_until: Option<i64>,
    /// The commit that last touched the tag's file by then.
    pub git_commit: Option<String>,
    /// Why it went live, and its files as long as its table is there.
    pub origin: Origin,
    /// Where its rows are; `None` once they are dropped, or once the version is live again.
    pub table: Option<String>,
    /// Why its table does not follow any more.
    pub ended: Option<String>,
    /// As [`TagRegistration::complete_from`], when it was live last.
    pub complete_from: Option<i64>,
    /// As [`TagRegistration::lost`], when it was live last.
    pub lost: Vec<Lost>,
}

impl Version {
    /// The name under which it is computed and has its progress once it is not live any more.
    pub fn name(&self) -> String {
        version_name(&self.tag, self.version)
    }

    /// True for one whose table is kept up to date beside the live one's, as far as the store knows.
    pub fn is_kept(&self) -> bool {
        self.live_until.is_some() && self.table.is_some() && self.ended.is_none()
    }
}

/// What a version of a tag is called that is not live: no tag has such a name.
pub fn version_name(tag: &str, version: u64) -> String {
    format!("{tag}@{version}")
}

/// True for what a version is called, and not a tag.
pub fn is_version_name(name: &str) -> bool {
    name.contains('@')
}

/// Columns of `_tagflow_versions` that are read, in the order of [`versions_from`]; those of [`begun_row`] come first.
pub const VERSION_COLUMNS: [&str; 13] = [
    "tag",
    "version",
    "fingerprint",
    "git_commit",
    "author",
    "reason",
    "files",
    "live_from",
    "live_until",
    "table_name",
    "ended",
    "complete_from",
    "lost_records",
];

/// What is written of a version when it goes live, in the order of the first [`VERSION_COLUMNS`].
pub fn begun_row(progress: &TagProgress, registration: &TagRegistration, origin: &Origin) -> Texts {
    vec![
        Some(progress.tag.clone()),
        Some(registration.version.to_string()),
        Some(progress.fingerprint.clone()),
        registration.git_commit.clone(),
        origin.author.clone(),
        Some(origin.reason.clone()),
        Some(origin.files_json()),
    ]
}

/// The versions out of rows of `_tagflow_versions`; `complete_from` is wall time of `zone`.
///
/// # Errors
/// Which cell is not what this layout writes.
pub fn versions_from(rows: Vec<Texts>, zone: Tz) -> Result<Vec<Version>, String> {
    const TABLE: &str = "_tagflow_versions";
    let version = |mut row: Texts| {
        let mut text = |index| required(&mut row, index, TABLE);
        let (tag, version, fingerprint, reason, from) = (text(0)?, text(1)?, text(2)?, text(5)?, text(7)?);
        let mut optional = |index: usize| row.get_mut(index).and_then(Option::take);
        let broken = |what: &str, error: serde_json::Error| format!("{TABLE}.{what}: {error}");
        let files = optional(6).map(|text| serde_json::from_str(&text)).transpose();
        let lost = optional(12).map(|text| serde_json::from_str(&text)).transpose();
        Ok(Version {
            tag,
            version: number(&version, "_tagflow_versions.version")?,
            fingerprint,
            live_from: utc(&from)?,
            live_until: optional(8).map(|text| utc(&text)).transpose()?,
            git_commit: optional(3),
            origin: Origin {
                author: optional(4),
                reason,
                files: files.map_err(|error| broken("files", error))?.unwrap_or_default(),
            },
            table: optional(9),
            ended: optional(10),
            complete_from: optional(11).map(|text| millis_of(&text, zone)).transpose()?,
            lost: lost.map_err(|error| broken("lost_records", error))?.unwrap_or_default(),
        })
    };
    rows.into_iter().map(version).collect()
}

fn utc(text: &str) -> Result<i64, String> {
    let moment: DateTime<chrono::Utc> = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
        .map_err(|error| format!("_tagflow_versions: `{text}`: {error}"))?
        .and_utc();
    Ok(moment.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn file_whose_name_is_no_text_is_remembered_by_what_of_it_is() {
        let file = PathBuf::from(std::ffi::OsStr::from_bytes(b"tags/caf\xe9.sql"));
        let origin = Origin { files: BTreeMap::from([(file, "SELECT 1".to_string())]), ..Origin::default() };
        let shown = "{\"tags/caf\u{fffd}.sql\":\"SELECT 1\"}";
        assert_eq!(origin.files_json(), shown);
        let whole = serde_json::to_string(&origin).unwrap();
        assert_eq!(whole, format!("{{\"author\":null,\"reason\":\"\",\"files\":{shown}}}"));
        assert_eq!(serde_json::from_str::<Origin>(&whole).unwrap().files.len(), 1);
    }
}
