//! `tagflow verify`: compares every table with the batch answer over the events that it shows.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::cli::{FAILED, Format, OK, ProjectArgs, complain, load, no_project, print};
use crate::engine::intake::World;
use crate::engine::verify::{Cell, Difference, Options, Sample, Step, Verdict, verify};
use crate::sink::open_store;

/// Arguments of `tagflow verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Only these tags; all unless given.
    tags: Vec<String>,
    #[command(flatten)]
    project: ProjectArgs,
    /// Compare about so many keys of each tag (1000), or a part of them (5%); the same ones every time.
    #[arg(long, value_name = "KEYS")]
    sample: Option<Sample>,
    /// How many differing rows of each tag are shown.
    #[arg(long, value_name = "ROWS", default_value_t = 20)]
    show: usize,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Reads all events again; a daemon may run meanwhile.
pub fn run(args: &VerifyArgs, out: &mut dyn Write) -> u8 {
    let (loaded, desired) = load(&args.project);
    let Some(mut desired) = desired else {
        return complain(no_project(&args.project.project));
    };
    let is_asked = |tag: &str| args.tags.is_empty() || args.tags.iter().any(|asked| asked == tag);
    let declared = loaded.project.iter().flat_map(|project| project.tags.values());
    let broken: Vec<String> = declared
        .filter(|tag| tag.runs() && is_asked(&tag.name) && !desired.tags.contains_key(&tag.name))
        .map(|tag| tag.name.clone())
        .collect();
    let is_known = |tag: &&String| desired.tags.contains_key(*tag) || broken.contains(tag);
    if let Some(unknown) = args.tags.iter().find(|tag| !is_known(tag)) {
        return complain(format!("there is no tag `{unknown}` in the project that runs"));
    }
    desired.tags.retain(|name, _| is_asked(name));
    let config = &desired.project.config;
    let world = World::beside_the_daemon(config);
    let mut store = match open_store(&config.store, &config.root, config.timezone) {
        Ok(store) => store,
        Err(error) => return complain(error),
    };
    let options = Options { sample: args.sample.unwrap_or(Sample::Whole), shown: args.show };
    let mut screen = Screen { is_on: std::io::stderr().is_terminal(), shown: None };
    let verdicts = verify(&desired, store.as_mut(), &world, options, &mut |step| screen.tell(step));
    screen.clear();
    let mut verdicts = match verdicts {
        Ok(verdicts) => verdicts,
        Err(error) => return complain(error),
    };
    let broken = broken.into_iter().map(|tag| Verdict {
        tag,
        shows: None,
        finding: Err("its file has errors; `tagflow check` tells them".to_string()),
    });
    verdicts.extend(broken);
    if verdicts.is_empty() {
        return complain("there is no tag to verify in the project");
    }
    match args.format {
        Format::Human => print(out, &describe(&verdicts, options.sample)),
        Format::Json => print(out, &format!("{:#}\n", as_json(&verdicts, options.sample))),
    }
    let is_right = |verdict: &Verdict| verdict.finding.as_ref().is_ok_and(|comparison| comparison.differences == 0);
    if verdicts.iter().all(is_right) { OK } else { FAILED }
}

fn describe(verdicts: &[Verdict], sample: Sample) -> String {
    let mut text = String::new();
    let rows = if sample == Sample::Whole { "rows" } else { "rows of the sample" };
    for verdict in verdicts {
        let Ok(found) = &verdict.finding else { continue };
        let judgement =
            if found.differences == 0 { "right".to_string() } else { format!("{} DIFFER", found.differences) };
        text.push_str(&format!("{:<28} {:>9} {rows}  {judgement}\n", verdict.tag, found.rows));
        for difference in &found.shown {
            text.push_str(&format!("    {}\n", in_words(difference)));
        }
        if found.differences > found.shown.len() {
            text.push_str(&format!("    and {} more\n", found.differences - found.shown.len()));
        }
    }
    // Behind the others: they say nothing of the tables.
    for verdict in verdicts {
        if let Err(reason) = &verdict.finding {
            text.push_str(&format!("{:<28} NOT VERIFIED: {reason}\n", verdict.tag));
        }
    }
    text
}

fn in_words(difference: &Difference) -> String {
    let key: Vec<String> = difference.key.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let all = |cells: &[(String, Cell)]| {
        let cells: Vec<String> = cells.iter().map(|(name, cell)| format!("{name} = {cell}")).collect();
        if cells.is_empty() { String::new() } else { format!(": {}", cells.join(", ")) }
    };
    let said = match (&difference.found, &difference.expected) {
        (Some(found), Some(expected)) => {
            let pairs = found.iter().zip(expected).filter(|((_, found), (_, expected))| found != expected);
            let pairs: Vec<String> =
                pairs.map(|((name, found), (_, expected))| format!("{name} is {found}, not {expected}")).collect();
            pairs.join("; ")
        }
        (None, Some(expected)) => format!("missing{}", all(expected)),
        (Some(found), None) => format!("should not be there{}", all(found)),
        (None, None) => String::new(),
    };
    format!("{}: {said}", key.join(", "))
}

fn as_json(verdicts: &[Verdict], sample: Sample) -> Json {
    let count = |is_such: &dyn Fn(&Verdict) -> bool| verdicts.iter().filter(|verdict| is_such(verdict)).count();
    let differs = |verdict: &Verdict| verdict.finding.as_ref().is_ok_and(|found| found.differences > 0);
    let tags: Vec<Json> = verdicts.iter().map(|verdict| tag_as_json(verdict, differs(verdict))).collect();
    json!({
        "right": count(&|verdict| verdict.finding.is_ok() && !differs(verdict)),
        "different": count(&differs),
        "not_verified": count(&|verdict| verdict.finding.is_err()),
        "sampled": sample != Sample::Whole,
        "tags": tags,
    })
}

fn tag_as_json(verdict: &Verdict, differs: bool) -> Json {
    let found = verdict.finding.as_ref().ok();
    let clock = verdict.shows.as_ref().map(|progress| chrono::DateTime::from_timestamp_nanos(progress.clock));
    json!({
        "tag": verdict.tag,
        "verdict": match found {
            None => "not_verified",
            Some(_) if differs => "different",
            Some(_) => "right",
        },
        "rows": found.map(|found| found.rows),
        "differences": found.map(|found| found.differences),
        "shown": found.map(|found| found.shown.iter().map(difference_as_json).collect::<Vec<_>>()),
        "reason": verdict.finding.as_ref().err(),
        "true_at": clock.map(|clock| clock.to_rfc3339()),
        "true_offsets": verdict.shows.as_ref().map(|progress| &progress.offsets),
    })
}

/// A row that differs: its key, and the values on either side.
pub(super) fn difference_as_json(difference: &Difference) -> Json {
    let cells = |cells: &Option<Vec<(String, Cell)>>| {
        let cell = |(name, cell): &(String, Cell)| (name.clone(), cell_as_json(cell));
        cells.as_ref().map(|cells| cells.iter().map(cell).collect::<serde_json::Map<_, _>>())
    };
    let key: BTreeMap<&String, &String> = difference.key.iter().map(|(name, value)| (name, value)).collect();
    json!({ "key": key, "found": cells(&difference.found), "expected": cells(&difference.expected) })
}

/// Text as the database shows it, so that no digit is lost.
fn cell_as_json(cell: &Cell) -> Json {
    match cell {
        Cell::Null => Json::Null,
        Cell::Text(text) => text.as_str().into(),
        Cell::Double(value) => (*value).into(),
    }
}

/// A line on a terminal that says how far it is.
struct Screen {
    is_on: bool,
    shown: Option<Instant>,
}

impl Screen {
    fn tell(&mut self, step: Step<'_>) {
        if !self.is_on || self.shown.is_some_and(|shown| shown.elapsed() < Duration::from_millis(200)) {
            return;
        }
        self.shown = Some(Instant::now());
        let line = match step {
            Step::Table(tag) => format!("reads table {tag}"),
            Step::Events(read, of) => format!("reads events: {read} of about {of}"),
            Step::Answer(tag) => format!("computes {tag}"),
        };
        let _ = write!(std::io::stderr(), "\r\x1b[K{line}").and_then(|()| std::io::stderr().flush());
    }

    fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
