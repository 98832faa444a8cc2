//! Any bytes as a record of a stream of each format: a row that a plain reader of the format agrees with, or a dead letter
//! that says why; and what is decoded before and behind it does not show it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;

use super::plain;
use crate::catalog::{AvroSchema, Column, Format, Stream};
use crate::project::load_from_memory;
use crate::source::decode::{Decoder, Lookup, RawRecord, Schemas, Unavailable};

/// What [`record`] tells formats apart by: the first byte of its input, from `a` on.
const FORMATS: [&str; 13] = [
    "json",
    "csv",
    "named_csv",
    "debezium",
    "canal",
    "maxwell",
    "upsert",
    "key",
    "table",
    "avro",
    "registry",
    "protobuf",
    "framed",
];

/// A schema file of `fuzz/project`.
macro_rules! schema {
    ($name:literal) => {
        (
            concat!("schemas/", $name, ".toml"),
            include_bytes!(concat!("../../fuzz/project/schemas/", $name, ".toml")).as_slice(),
        )
    };
}

const ORDER: &str = include_str!("../../tests/avro/order.avsc");

const PROJECT: [(&str, &[u8]); 14] = [
    ("tagflow.toml", include_bytes!("../../fuzz/project/tagflow.toml")),
    ("schemas/order.avsc", ORDER.as_bytes()),
    ("schemas/shop.desc", include_bytes!("../../tests/protobuf/all.desc")),
    schema!("json"),
    schema!("csv"),
    schema!("debezium"),
    schema!("canal"),
    schema!("maxwell"),
    schema!("upsert"),
    schema!("table"),
    schema!("avro"),
    schema!("registry"),
    schema!("protobuf"),
    schema!("framed"),
];

/// One record in so many is decoded by a new decoder too.
const COMPARED: u32 = 8;
/// No row takes more memory than this, and that for each byte of its record.
const MOST_BYTES: usize = 64 << 10;
const MOST_BYTES_A_BYTE: usize = 64;
/// No dead letter says more than this.
const LONGEST_REASON: usize = 1_000;

/// Decodes the bytes behind the first as a record of the format that the first stands for; true where it is a row.
///
/// # Panics
/// Where a promise is broken.
pub fn record(input: &[u8]) -> bool {
    let Some((first, payload)) = input.split_first() else { return false };
    let format = usize::from(first.wrapping_sub(b'a')) % FORMATS.len();
    FORMATTED.with_borrow_mut(|formatted| formatted[format].take(payload))
}

thread_local! {
    static FORMATTED: RefCell<Vec<Formatted>> = RefCell::new(FORMATS.map(Formatted::new).into());
}

/// A format, with decoders that have seen all input so far.
struct Formatted {
    name: &'static str,
    /// Its columns in their types, and all as text.
    streams: [Stream; 2],
    decoders: [Decoder; 2],
}

impl Formatted {
    fn new(name: &'static str) -> Self {
        let contents: BTreeMap<PathBuf, Vec<u8>> =
            PROJECT.iter().map(|(file, bytes)| (PathBuf::from(file), bytes.to_vec())).collect();
        let loaded = load_from_memory(&contents, &|_| None);
        assert_eq!(loaded.diagnostics, [], "the project of the formats is sound");
        let stream = match name {
            "named_csv" => "csv",
            "key" => "upsert",
            own => own,
        };
        let streams = loaded.project.expect("it is sound").catalog.streams;
        let typed = Stream::clone(&streams[stream]);
        let text = |column: &Column| Column { data_type: DataType::Utf8, nullable: true, ..column.clone() };
        let texts = Stream { columns: typed.columns.iter().map(text).collect(), ..typed.clone() };
        let streams = [typed, texts];
        let decoders = streams.each_ref().map(decoder);
        Formatted { name, streams, decoders }
    }

    /// True where its columns in their types take it.
    fn take(&mut self, payload: &[u8]) -> bool {
        let mut taken = Vec::new();
        // A new decoder costs more than a record: one in some sees what the other has seen before.
        let is_compared = crc32fast::hash(payload).is_multiple_of(COMPARED);
        for (stream, seasoned) in self.streams.iter().zip(&mut self.decoders) {
            let name = self.name;
            let decoded = decode(name, seasoned, payload);
            if is_compared {
                let fresh = decode(name, &mut decoder(stream), payload);
                assert_eq!(decoded, fresh, "{name}: what came before is seen");
                let bytes = fresh.map_or(0, |batch| batch.get_array_memory_size());
                assert!(bytes <= MOST_BYTES + MOST_BYTES_A_BYTE * payload.len(), "{name}: {bytes} bytes of memory");
            }
            taken.push(decoded.is_ok());
            match decoded {
                Err(reason) => {
                    let is_clear = !reason.is_empty() && reason.len() < LONGEST_REASON;
                    assert!(is_clear && !reason.contains("panic"), "{name}: {reason}");
                    assert!(!plain::is_refused_wrongly(name, payload, &reason), "{name}: {reason}");
                }
                Ok(batch) => {
                    plain::agrees(name, stream, payload, &batch);
                }
            }
        }
        taken[0]
    }
}

fn decoder(stream: &Stream) -> Decoder {
    let all: Vec<usize> = (0..stream.schema().fields().len()).collect();
    let mut decoder = Decoder::new(stream, &all).expect("the columns can be decoded");
    if matches!(stream.format, Format::Avro(None)) {
        decoder.set_schemas(Arc::new(Registry(Arc::new(AvroSchema::parse(&[ORDER]).expect("it is sound")))));
    }
    decoder
}

fn decode(name: &str, decoder: &mut Decoder, payload: &[u8]) -> Result<RecordBatch, String> {
    let mut record = RawRecord {
        topic: "orders",
        partition: 3,
        offset: 41,
        timestamp: Some(1_700_000_000_000),
        key: Some(b"k\xff"),
        payload: Some(payload),
    };
    match name {
        "key" => record = RawRecord { key: Some(payload), payload: None, ..record },
        "named_csv" => {
            let (header, line) = plain::cut_header(payload);
            // What is declared counts again where the header cannot be read.
            decoder.set_csv_header(header).map_err(|error| error.to_string())?;
            record.payload = Some(line);
        }
        _ => {}
    }
    decoder.prepare(record.payload).map_err(|error| error.to_string())?;
    let decoded = decoder.decode(&record);
    let batch = decoder.finish();
    match decoded {
        Ok(()) => Ok(batch),
        Err(error) => {
            assert_eq!(batch.num_rows(), 0, "{name}: a refused record leaves a row: {error}");
            Err(error.to_string())
        }
    }
}

/// A registry that knows one schema, one that cannot be used, and no other.
struct Registry(Arc<AvroSchema>);

impl Schemas for Registry {
    fn look_up(&self, id: u32) -> Result<Arc<Lookup>, Unavailable> {
        Ok(Arc::new(match id {
            1 => Lookup::Schema(Arc::clone(&self.0)),
            2 => Lookup::Unusable("it is of another kind".to_string()),
            3 => return Err(Unavailable("the registry is away".to_string())),
            _ => Lookup::Unknown,
        }))
    }
}
