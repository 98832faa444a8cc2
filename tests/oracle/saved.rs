//! The checkpoints of a run: written as the daemon writes them, read back, and compared with the state that they are of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use arrow::util::pretty::pretty_format_batches;
use tagflow::config::Keeping;
use tagflow::engine::checkpoint::{Checkpoints, Position, State, Taken, Writer};
use tagflow::operator::StatePart;
use tagflow::operator::graph::Graph;
use tagflow::operator::state::Extent;
use tagflow::plan::flow::FlowPlan;

/// A place for checkpoints, and their writer.
pub struct Saved {
    _folder: tempfile::TempDir,
    checkpoints: Checkpoints,
    writer: Writer,
    epoch: u64,
    /// Parts that were changes alone.
    pub changes: usize,
}

const KEEPING: Keeping = Keeping { count: 2, age: Duration::ZERO };

impl Saved {
    pub fn new() -> Self {
        // In memory where that can be had: what the disk does is not what is tested.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let checkpoints = Checkpoints::new(folder.path());
        let writer = Writer::open(checkpoints.clone(), KEEPING, BTreeMap::new()).unwrap();
        Saved { _folder: folder, checkpoints, writer, epoch: 0, changes: 0 }
    }

    /// Writes a checkpoint of what has changed and reads it back into another graph, without tags, which then has the same
    /// state.
    pub fn save(&mut self, graph: &mut Graph, tags: &[(String, Arc<FlowPlan>)], mut loaded: Graph) -> Graph {
        self.epoch += 1;
        let (state, further) = graph.changes().unwrap();
        let parts = state.values().flatten();
        self.changes += parts.filter(|part| matches!(part.extent, Extent::Changes(_)) && !part.is_unchanged()).count();
        let position = Position { epoch: self.epoch, ..Position::default() };
        let manifest = self.writer.write(Taken { position, state, further }, 0).unwrap();
        self.writer.publish(manifest).unwrap();
        assert!(self.writer.join_runs(&|| false).unwrap(), "files are damaged");

        assert_eq!(self.checkpoints.epochs().unwrap()[0], self.epoch);
        let manifest = self.checkpoints.manifest(self.epoch).unwrap();
        for (tag, plan) in tags {
            loaded.add_tag(tag, plan).unwrap();
        }
        let outputs: BTreeSet<_> = loaded.outputs();
        for piece in self.checkpoints.pieces(&manifest) {
            let piece = piece.unwrap();
            for number in 0..PIECES {
                let parts: Vec<StatePart> = piece.parts.iter().map(|part| slice(part, number)).collect();
                loaded.load_operator(piece.operator, &parts, &outputs).unwrap();
            }
        }
        loaded.set_saved(true);
        let (expected, found) = (tables(&graph.snapshot().unwrap()), tables(&loaded.snapshot().unwrap()));
        assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
        for (table, rows) in &expected {
            let differs = |one: &Table, other: &Table| one.texts(one.rows.difference(&other.rows));
            let (missing, more) = (differs(rows, &found[table]), differs(&found[table], rows));
            assert!(rows.rows == found[table].rows, "{table:?} of checkpoint {}\n{missing}\n{more}", self.epoch);
        }
        loaded
    }

    /// As after a crash: another writer goes on from the newest checkpoint.
    pub fn restart(&mut self) {
        let manifest = self.checkpoints.manifest(self.epoch).unwrap();
        self.writer = Writer::open(self.checkpoints.clone(), KEEPING, manifest.operators).unwrap();
    }
}

/// What is read from files is cut where it is large alone; here all is cut into so many.
const PIECES: usize = 3;

/// One piece of a part.
fn slice(part: &StatePart, number: usize) -> StatePart {
    let rows = part.batch.num_rows();
    let (from, to) = (rows * number / PIECES, rows * (number + 1) / PIECES);
    StatePart { batch: part.batch.slice(from, to - from), ..part.clone() }
}

/// The rows of a table, whatever their order.
#[derive(Default)]
struct Table {
    types: Vec<DataType>,
    rows: BTreeSet<Box<[u8]>>,
}

impl Table {
    fn converter(&self) -> RowConverter {
        RowConverter::new(self.types.iter().cloned().map(SortField::new).collect()).unwrap()
    }

    /// Some rows, for people.
    fn texts<'a>(&self, rows: impl Iterator<Item = &'a Box<[u8]>>) -> String {
        let converter = self.converter();
        let parser = converter.parser();
        let columns = converter.convert_rows(rows.take(3).map(|row| parser.parse(row))).unwrap();
        let named = columns.into_iter().enumerate().map(|(index, column)| (index.to_string(), column));
        pretty_format_batches(&[RecordBatch::try_from_iter(named).unwrap()]).unwrap().to_string()
    }
}

fn tables(state: &State) -> BTreeMap<(String, String), Table> {
    let mut tables: BTreeMap<(String, String), Table> = BTreeMap::new();
    for (operator, parts) in state {
        for part in parts {
            let table = tables.entry((operator.clone(), part.name.clone())).or_default();
            table.types = part.batch.schema().fields().iter().map(|field| field.data_type().clone()).collect();
            let encoded = table.converter().convert_columns(part.batch.columns()).unwrap();
            for row in &encoded {
                assert!(table.rows.insert(row.data().into()), "a row of {operator} {} is there twice", part.name);
            }
        }
    }
    tables
}
