//! `tagflow new schema NAME`: a schema file to fill in, or one that is proposed out of a topic or a table.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::proposal::{Proposal, ProposedColumn, Setting, of_avro, of_records, of_table};
use super::{report, write_new};
use crate::catalog::{AvroSchema, FOLDER, Format as RecordFormat, Stream, is_stream_name};
use crate::cli::{FAILED, Format, OK, ProjectArgs, USAGE, complain, load, no_project, print_diagnostics};
use crate::config::Connection;
use crate::diagnostic::nearest;
use crate::engine::desired::is_sound;
use crate::project::{self, Project};
use crate::source::Registries;
use crate::source::decode::{Decoder, Lookup, RawRecord};
use crate::source::sample::{Sampled, describe, sample};

/// Arguments of `tagflow new schema`.
#[derive(Debug, clap::Args)]
pub(super) struct SchemaArgs {
    /// What SQL will call it.
    name: String,
    /// The connection of tagflow.toml, where there are several.
    #[arg(long)]
    connection: Option<String>,
    /// The topic, for a file to fill in; NAME where it is not said.
    #[arg(long, conflicts_with_all = ["from_topic", "from_mysql"])]
    topic: Option<String>,
    /// Read a sample of this topic and propose columns, types and the event time.
    #[arg(long, value_name = "TOPIC")]
    from_topic: Option<String>,
    /// Ask the database what it declares of this table.
    #[arg(long, value_name = "TABLE", conflicts_with = "from_topic")]
    from_mysql: Option<String>,
    /// How many records to look at.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sample: u32,
    #[command(flatten)]
    project: ProjectArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Why there is no file, and the exit code.
struct Refusal(u8, String);

/// What a proposal rests on.
enum Evidence {
    /// The author fills it in.
    Nothing,
    Records(Vec<Sampled>),
    Declared,
}

/// Writes the file, and checks it as `tagflow check` does.
pub(super) fn run(args: &SchemaArgs, out: &mut dyn Write) -> u8 {
    let loaded = project::load(&args.project.project, args.project.profile.as_deref());
    let Some(project) = &loaded.project else {
        return complain(no_project(&args.project.project));
    };
    let written = propose(args, project).and_then(|(proposal, evidence)| {
        let file = Path::new(FOLDER).join(&args.name).with_extension("toml");
        match write_new(&args.project.project, &file, &proposal.text()) {
            Ok(()) => Ok((file, proposal, evidence)),
            Err(error) => Err(Refusal(USAGE, format!("{}: {error}", file.display()))),
        }
    });
    let (file, proposal, evidence) = match written {
        Ok(written) => written,
        Err(Refusal(code, message)) => {
            complain(message);
            return code;
        }
    };
    let (mut loaded, _) = load(&args.project);
    loaded.diagnostics.retain(|diagnostic| diagnostic.file == file);
    let stream = loaded.project.as_ref().and_then(|project| project.catalog.streams.get(&args.name));
    let mut remarks = Vec::new();
    let fit = match (&evidence, stream) {
        (Evidence::Records(records), Some(stream)) => Some(fit(records, stream, loaded.project.as_ref())),
        _ => None,
    };
    if let Some(Fit { records, decoded, first_misfit }) = &fit {
        remarks.push(format!("{decoded} of {records} sampled records fit it"));
        remarks.extend(first_misfit.iter().map(|misfit| format!("the first that does not: {misfit}")));
    }
    match proposal.unsure() {
        0 => {}
        1 => remarks.push("look at the column that is marked \"unsure\"".to_string()),
        unsure => remarks.push(format!("look at the {unsure} columns that are marked \"unsure\"")),
    }
    let facts = json!({
        "columns": proposal.columns.len(), "unsure": proposal.unsure(),
        "sampled": fit.as_ref().map(|fit| fit.records), "decoded": fit.as_ref().map(|fit| fit.decoded),
    });
    report(out, args.format, &file, &facts, &remarks);
    if args.format == Format::Human {
        print_diagnostics(&loaded, Format::Human, out, false);
    }
    if is_sound(&loaded.diagnostics) { OK } else { FAILED }
}

fn propose(args: &SchemaArgs, project: &Project) -> Result<(Proposal, Evidence), Refusal> {
    let usage = |message: String| Refusal(USAGE, message);
    if !is_stream_name(&args.name) {
        let rule = "a lower-case letter, then lower-case letters, digits and _; at most 63";
        return Err(usage(format!("`{}` cannot be the name of a stream: {rule}", args.name)));
    }
    let file = |extension: &str| PathBuf::from(FOLDER).join(&args.name).with_extension(extension);
    if let Some(taken) = [file("sql"), file("toml")].iter().find(|file| args.project.project.join(file).exists()) {
        return Err(usage(format!("the name is taken by {}", taken.display())));
    }
    let is_table = args.from_mysql.is_some();
    let (name, connection) = choose_connection(args, project, is_table)?;
    let failed = |message: String| Refusal(FAILED, format!("connection `{name}`: {message}"));
    if let Some(table) = &args.from_mysql {
        let Connection::Mysql(address) = connection else {
            return Err(usage(format!("`{name}` is no connection of type \"mysql\"")));
        };
        let mut proposal = describe(address, table).and_then(|table| of_table(&table)).map_err(failed)?;
        proposal.head.insert(0, format!("Proposed out of what the database declares of {table}."));
        let settings =
            [Setting::text("kind", "mysql"), Setting::text("connection", name), Setting::text("table", table)];
        proposal.settings.splice(0..0, settings);
        return Ok((proposal, Evidence::Declared));
    }
    let Some(topic) = &args.from_topic else {
        return Ok((blank(name, args.topic.as_ref().unwrap_or(&args.name)), Evidence::Nothing));
    };
    let clock: crate::source::WallClock = Arc::new(|| chrono::Utc::now().timestamp_millis());
    let most = usize::try_from(args.sample).unwrap_or(usize::MAX);
    let records = sample(connection, topic, most, &clock).map_err(failed)?;
    let mut proposal = match avro_schema(&records, connection).map_err(failed)? {
        Some(schema) => of_avro(&schema),
        None => of_records(&records, topic),
    }
    .map_err(|message| failed(format!("topic {topic:?}: {message}")))?;
    let count = records.len();
    proposal.head.insert(
        0,
        format!(
            "Proposed out of {count} records. Columns may be missing in a record unless NOT NULL is behind their type."
        ),
    );
    proposal.head.insert(
        1,
        "A value that does not fit its type makes its record a dead letter: `tagflow dead-letters`.".to_string(),
    );
    proposal.settings.splice(0..0, [Setting::text("connection", name), Setting::text("topic", topic)]);
    Ok((proposal, Evidence::Records(records)))
}

/// The schema of the newest record that names one of the connection's registry.
fn avro_schema(records: &[Sampled], connection: &Connection) -> Result<Option<Arc<AvroSchema>>, String> {
    let Connection::Kafka { registry: Some(address), .. } = connection else { return Ok(None) };
    let id = |record: &Sampled| match record.payload.as_deref() {
        Some([0, a, b, c, d, _, ..]) => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    };
    let Some(id) = records.iter().rev().find_map(id) else { return Ok(None) };
    match Registries::default().at(address).look_up(id).map_err(|unavailable| unavailable.to_string())?.as_ref() {
        Lookup::Schema(schema) => Ok(Some(Arc::clone(schema))),
        Lookup::Unusable(reason) => Err(format!("the schema {id} of the registry cannot be read: {reason}")),
        Lookup::Unknown => Err(format!("the registry knows no schema {id}")),
    }
}

fn choose_connection<'a>(
    args: &SchemaArgs,
    project: &'a Project,
    is_table: bool,
) -> Result<(&'a str, &'a Connection), Refusal> {
    let connections = &project.config.connections;
    let suits = |connection: &Connection| matches!(connection, Connection::Mysql(_)) == is_table;
    let names: Vec<&str> =
        connections.iter().filter(|(_, connection)| suits(connection)).map(|(name, _)| name.as_str()).collect();
    let name = match (&args.connection, names.as_slice()) {
        (Some(name), _) => name.as_str(),
        (None, [only]) => only,
        (None, []) => {
            let wanted = if is_table { "type = \"mysql\"" } else { "type = \"kafka\"" };
            return Err(Refusal(USAGE, format!("tagflow.toml has no usable connection for it: add one of {wanted}")));
        }
        (None, _) => return Err(Refusal(USAGE, format!("say which, with --connection: {}", names.join(", ")))),
    };
    match connections.get_key_value(name) {
        Some((name, connection)) => Ok((name, connection)),
        None => {
            let near = nearest(name, names.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
            let near = near.unwrap_or_default();
            Err(Refusal(USAGE, format!("there is no sound connection `{name}` in tagflow.toml{near}")))
        }
    }
}

/// A file that says what there is to say.
fn blank(connection: &str, topic: &str) -> Proposal {
    let column = |name: &str, sql_type: &str, remark: &str| ProposedColumn {
        name: name.to_string(),
        sql_type: sql_type.to_string(),
        remark: Some(remark.to_string()),
        ..ProposedColumn::default()
    };
    let nested = ProposedColumn {
        path: Some("$.item.category".to_string()),
        ..column("category", "VARCHAR", "a field of an object within the record")
    };
    let time = ProposedColumn {
        format: Some("epoch_ms"),
        ..column("event_time", "TIMESTAMP(3)", "iso (text, what it is without format), epoch_s, epoch_ms, epoch_us")
    };
    Proposal {
        head: vec![
            "`tagflow new schema NAME --from-topic T` proposes all of this out of the records themselves.".to_string(),
        ],
        settings: vec![
            Setting::text("connection", connection),
            Setting::text("topic", topic),
            Setting::text("format", "json").with("csv, avro, protobuf, debezium-json, canal-json, maxwell-json"),
            Setting::new("time", "{ column = \"event_time\", lateness = \"10s\" }".to_string())
                .with("how far behind the newest another may still come"),
        ],
        columns: vec![
            column("user_id", "BIGINT", "NOT NULL behind the type makes a record without it a dead letter"),
            column("amount", "DECIMAL(12,2)", "exact; DOUBLE is for measures, not for money"),
            nested,
            time,
        ],
    }
}

/// How many of the records decode, by the very decoder of the daemon.
struct Fit {
    records: usize,
    decoded: usize,
    first_misfit: Option<String>,
}

fn fit(records: &[Sampled], stream: &Stream, project: Option<&Project>) -> Fit {
    let columns: Vec<usize> = (0..stream.columns.len()).collect();
    let mut fit = Fit { records: 0, decoded: 0, first_misfit: None };
    let mut decoder = match Decoder::new(stream, &columns) {
        Ok(decoder) => decoder,
        Err(error) => return Fit { first_misfit: Some(error.to_string()), ..fit },
    };
    let connection = project.and_then(|project| project.config.connections.get(&stream.connection));
    if let Some(Connection::Kafka { registry: Some(address), .. }) = connection {
        decoder.set_schemas(Registries::default().at(address));
    }
    let mut records = records;
    if let (RecordFormat::Csv, Some((header, rest))) = (&stream.format, records.split_first()) {
        if let Err(error) = decoder.set_csv_header(header.payload.as_deref().unwrap_or_default()) {
            return Fit { first_misfit: Some(error.to_string()), ..fit };
        }
        records = rest;
    }
    for record in records {
        let raw = RawRecord {
            topic: &stream.topic,
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            payload: record.payload.as_deref(),
        };
        fit.records += 1;
        let outcome = decoder.prepare(raw.payload).map_err(|unavailable| unavailable.to_string());
        match outcome.and_then(|()| decoder.decode(&raw).map_err(|error| error.to_string())) {
            Ok(()) => fit.decoded += 1,
            Err(misfit) => fit.first_misfit = fit.first_misfit.or(Some(misfit)),
        }
    }
    fit
}
