//! What checkpoints cost: the loop's pause, the time to write, the bytes for each key that changed; and how long a start
//! takes that loads them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Decimal128Array, Int64Array, RecordBatch};
use tagflow::config::Keeping;
use tagflow::engine::checkpoint::{Checkpoints, Position, Taken, Writer};
use tagflow::engine::dataflow::Dataflow;
use tagflow::engine::desired::Desired;

use crate::Failure;

/// Rows of one epoch.
const EPOCH: u64 = 1 << 17;
const KEEPING: Keeping = Keeping { count: 2, age: Duration::ZERO };

/// Prints the figures for a tag that sums orders by user.
pub fn run(desired: &Desired) -> Result<(), Failure> {
    println!("{:<34} {:>9} {:>9} {:>20}", "checkpoints", "pause ms", "write ms", "bytes a changed key");
    for keys in [1_000_000, 10_000_000] {
        let folder = tempfile::tempdir()?;
        measure(desired, folder.path(), keys)?;
    }
    Ok(())
}

fn measure(desired: &Desired, folder: &Path, keys: u64) -> Result<(), Failure> {
    let checkpoints = Checkpoints::new(folder);
    let mut writer = Writer::open(checkpoints.clone(), KEEPING, BTreeMap::new())?;
    let mut dataflow = empty(desired)?;
    step(&mut dataflow, keys, 1);
    let millions = keys / 1_000_000;
    save(&format!("all of {millions} M keys"), &mut dataflow, &mut writer, keys)?;
    for changed in [1_000, 10_000, 100_000] {
        // Spread over all keys, as users come.
        step(&mut dataflow, changed, keys / changed);
        save(&format!("{changed} of {millions} M keys changed"), &mut dataflow, &mut writer, changed)?;
    }
    drop(dataflow);
    let begun = Instant::now();
    let epoch = checkpoints.epochs()?.into_iter().next().ok_or("no checkpoint was written")?;
    let manifest = checkpoints.manifest(epoch)?;
    let mut dataflow = empty(desired)?;
    for piece in checkpoints.pieces(&manifest) {
        let piece = piece?;
        dataflow.load(piece.operator, &piece.parts)?;
    }
    let name = format!("load {millions} M keys");
    println!("{name:<34} {:>9} ms, {} bytes", begun.elapsed().as_millis(), manifest.bytes());
    Ok(())
}

fn empty(desired: &Desired) -> Result<Dataflow, Failure> {
    let mut dataflow = Dataflow::new(rayon::current_num_threads(), desired.project.config.timezone);
    for (tag, planned) in &desired.tags {
        dataflow.add_tag(&planned.table, tag, &planned.plan, 0, &Default::default())?;
    }
    Ok(dataflow)
}

/// An order of each of so many users, every `apart`th of them.
fn step(dataflow: &mut Dataflow, users: u64, apart: u64) {
    let mut first = 0;
    while first < users {
        let count = EPOCH.min(users - first);
        let ids = Int64Array::from_iter_values((first..first + count).map(|user| (user * apart) as i64));
        let amounts = Decimal128Array::from_iter_values((0..count).map(i128::from));
        let amounts = amounts.with_precision_and_scale(12, 2).unwrap_or_else(|_| unreachable!("12 digits hold them"));
        let columns: [(&str, arrow::array::ArrayRef); 2] = [("user_id", Arc::new(ids)), ("amount", Arc::new(amounts))];
        if let Ok(batch) = RecordBatch::try_from_iter(columns) {
            dataflow.epoch += 1;
            dataflow.replay(&HashMap::from([("orders".to_string(), batch)]), 1);
        }
        first += count;
    }
}

fn save(name: &str, dataflow: &mut Dataflow, writer: &mut Writer, changed: u64) -> Result<(), Failure> {
    let before = writer.bytes();
    let begun = Instant::now();
    let (state, further) = dataflow.graph.changes()?;
    let pause = begun.elapsed();
    let position = Position { epoch: dataflow.epoch, ..Position::default() };
    let manifest = writer.write(Taken { position, state, further }, 0)?;
    writer.publish(manifest)?;
    let written = begun.elapsed() - pause;
    let bytes = (writer.bytes() - before) as f64 / changed as f64;
    println!("{name:<34} {:>9.1} {:>9.1} {bytes:>20.1}", millis(pause), millis(written));
    writer.join_runs(&|| false)?;
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
