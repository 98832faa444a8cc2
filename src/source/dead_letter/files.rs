//! The files of one stream's letters: `<stream>.jsonl`, `<stream>.1.jsonl` before it, and `<stream>.gone.jsonl`.
//!
//! The daemon appends while commands read and take letters out, so every use holds a lock of the file system. The places
//! of letters that are gone, by hand or for room, are remembered: a reader that meets such a record again (a fill, a
//! replay after a crash) does not bring its letter back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::letter::{DeadLetter, Kind};

/// Places of letters that are gone; older ones than these are forgotten.
const MOST_GONE: usize = 250_000;

/// What tells one letter from another: the record, also from one of a topic that was made again, and who put it aside.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Place {
    #[serde(default)]
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    pub partition: i32,
    pub offset: i64,
    pub timestamp: Option<i64>,
}

/// The files of one stream.
#[derive(Debug, Clone)]
pub struct LetterFiles {
    dir: PathBuf,
    stream: String,
}

/// Held as long as the files must not change.
pub(super) struct Locked(#[expect(dead_code, reason = "its drop is what it is for")] File);

impl LetterFiles {
    /// Of a stream, in a folder that need not be there.
    pub fn of(dir: &Path, stream: &str) -> Self {
        LetterFiles { dir: dir.to_path_buf(), stream: stream.to_string() }
    }

    /// The streams that have letters in a folder.
    pub fn streams(dir: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut streams = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let stream = name.strip_suffix(".1.jsonl").or_else(|| name.strip_suffix(".jsonl"));
            streams.extend(stream.filter(|stream| !stream.ends_with(".gone")).map(str::to_string));
        }
        streams.sort();
        streams.dedup();
        Ok(streams)
    }

    pub(super) fn current(&self) -> PathBuf {
        self.dir.join(format!("{}.jsonl", self.stream))
    }

    pub(super) fn previous(&self) -> PathBuf {
        self.dir.join(format!("{}.1.jsonl", self.stream))
    }

    fn gone(&self) -> PathBuf {
        self.dir.join(format!("{}.gone.jsonl", self.stream))
    }

    /// Waits until nobody else uses the files.
    pub(super) fn lock(&self) -> io::Result<Locked> {
        fs::create_dir_all(&self.dir)?;
        let path = self.dir.join(format!("{}.lock", self.stream));
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.lock()?;
        Ok(Locked(file))
    }

    /// Bytes of the letters' two files: another pair than before tells that somebody took letters out.
    pub(super) fn lengths(&self) -> io::Result<(u64, u64)> {
        let length = |path: PathBuf| match fs::metadata(path) {
            Ok(found) => Ok(found.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        };
        Ok((length(self.previous())?, length(self.current())?))
    }

    /// Waits until what was written is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        for path in [self.previous(), self.current(), self.gone()] {
            match File::open(path) {
                Ok(file) => file.sync_all()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        File::open(&self.dir)?.sync_all()
    }

    /// Shows every letter, oldest first.
    pub fn each(&self, mut show: impl FnMut(DeadLetter)) -> io::Result<()> {
        if !self.dir.exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        each_line(&self.previous(), |letter, _| show(letter))?;
        each_line(&self.current(), |letter, _| show(letter))
    }

    /// Takes out the letters that are meant and says how many. Unless `may_return`, no reader brings them back.
    pub fn take_out(&self, is_meant: impl Fn(&DeadLetter) -> bool, may_return: bool) -> io::Result<u64> {
        if !self.dir.exists() {
            return Ok(0);
        }
        let _lock = self.lock()?;
        let mut taken = Vec::new();
        for path in [self.previous(), self.current()] {
            let before = taken.len();
            let unfinished = path.with_extension("unfinished");
            let mut kept = BufWriter::new(File::create(&unfinished)?);
            let mut outcome = Ok(());
            each_line(&path, |letter: DeadLetter, line| {
                if is_meant(&letter) {
                    taken.push(letter.place());
                } else if outcome.is_ok() {
                    outcome = kept.write_all(line).and_then(|()| kept.write_all(b"\n"));
                }
            })?;
            outcome?;
            kept.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            if taken.len() == before {
                fs::remove_file(&unfinished)?;
                continue;
            }
            // The places first: a crash between leaves a letter that is known, and loses none.
            if !may_return {
                self.add_gone(&taken[before..])?;
            }
            fs::rename(&unfinished, &path)?;
        }
        Ok(taken.len() as u64)
    }

    /// Remembers letters that are gone, and gives all that are remembered; the caller holds the lock.
    pub(super) fn add_gone(&self, places: &[Place]) -> io::Result<Vec<Place>> {
        let path = self.gone();
        let mut lines = Vec::new();
        for place in places {
            serde_json::to_writer(&mut lines, place)?;
            lines.push(b'\n');
        }
        open_for_append(&path)?.0.write_all(&lines)?;
        let mut known = self.gone_places()?;
        if known.len() > MOST_GONE * 2 {
            known.drain(..known.len() - MOST_GONE);
            let unfinished = path.with_extension("unfinished");
            let mut newest = BufWriter::new(File::create(&unfinished)?);
            for place in &known {
                serde_json::to_writer(&mut newest, place)?;
                newest.write_all(b"\n")?;
            }
            newest.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&unfinished, &path)?;
        }
        Ok(known)
    }

    /// The places of the letters that are gone.
    pub(super) fn gone_places(&self) -> io::Result<Vec<Place>> {
        self.places(&self.gone())
    }

    /// The places of the letters in a file.
    pub(super) fn places(&self, path: &Path) -> io::Result<Vec<Place>> {
        let mut places = Vec::new();
        each_line(path, |place, _| places.push(place))?;
        Ok(places)
    }
}

impl DeadLetter {
    pub(super) fn place(&self) -> Place {
        Place {
            kind: self.kind,
            tag: self.tag.clone(),
            partition: self.partition,
            offset: self.offset,
            timestamp: self.timestamp,
        }
    }
}

/// Opens for appending; a line that a crash cut in half is ended, so that it harms no other.
pub(super) fn open_for_append(path: &Path) -> io::Result<(File, u64)> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let mut bytes = file.metadata()?.len();
    if bytes > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            bytes += 1;
        }
    }
    Ok((file, bytes))
}

/// What the lines of a file say; those that a crash cut in half are left out, a missing file has none.
fn each_line<T: for<'a> Deserialize<'a>>(path: &Path, mut show: impl FnMut(T, &[u8])) -> io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        if let Ok(found) = serde_json::from_slice(&line) {
            show(found, &line);
        }
    }
    Ok(())
}
