//! Rows and deletes of one tag into its table, inside the caller's transaction.
//!
//! Enters: key-sorted upserts and the keys to delete. Leaves: statements that the server has carried out.
//! Large batches go by LOAD DATA LOCAL where the server allows it (about twice as fast), others by multi-row
//! REPLACE: rows are always whole, InnoDB makes an update of it, and no server has declared it out of date as it has
//! `ON DUPLICATE KEY UPDATE … VALUES()`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use chrono_tz::Tz;

use super::encode::{RowEncoder, quote_name, quote_text};
use super::server::Session;
use crate::sink::types::StoreType;
use crate::sink::{SinkError, TagTable};

/// From here on LOAD DATA is worth its set-up.
const LOAD_ROWS: usize = 2_000;
/// Bytes of one piece that LOAD DATA sends.
const LOAD_CHUNK: usize = 256 << 10;
/// Longest statement that is built, where the server would take longer ones.
const STATEMENT_BYTES: usize = 4 << 20;
/// Keys of one DELETE: the optimizer must go by the index, and its memory for that is bounded.
const DELETE_KEYS: usize = 500;

/// Inserts or replaces the rows; returns how many values became NULL because MySQL has none like them.
pub(super) async fn upsert(
    session: &mut Session,
    table: &TagTable,
    rows: &RecordBatch,
    updated_at: &str,
    zone: Tz,
) -> Result<u64, SinkError> {
    if rows.num_rows() >= LOAD_ROWS && session.abilities.local_infile {
        load(session, table, rows, updated_at, zone).await
    } else {
        replace(session, table, rows, updated_at, zone).await
    }
}

async fn load(
    session: &mut Session,
    table: &TagTable,
    rows: &RecordBatch,
    updated_at: &str,
    zone: Tz,
) -> Result<u64, SinkError> {
    let mut targets = Vec::new();
    let mut sets = vec![format!("`_updated_at` = {}", quote_text(updated_at))];
    for (index, column) in table.key.iter().chain(&table.columns).enumerate() {
        // Bytes are no text in any character set, so they travel in hexadecimal.
        if StoreType::of(&column.data_type) == Ok(StoreType::Bytes) {
            targets.push(format!("@tagflow_{index}"));
            sets.push(format!("{} = UNHEX(@tagflow_{index})", quote_name(&column.name)));
        } else {
            targets.push(quote_name(&column.name));
        }
    }
    let sql = format!(
        "LOAD DATA LOCAL INFILE 'tagflow' REPLACE INTO TABLE {} CHARACTER SET utf8mb4 \
         FIELDS TERMINATED BY '\\t' ENCLOSED BY '' ESCAPED BY '\\\\' LINES TERMINATED BY '\\n' STARTING BY '' \
         ({}) SET {}",
        quote_name(&table.table),
        targets.join(", "),
        sets.join(", ")
    );
    let nulled = Arc::new(AtomicU64::new(0));
    let encoder = RowEncoder::new(rows, zone).map_err(|error| refused(table, &error))?;
    let lines = Lines { encoder, rows: rows.num_rows(), next: 0, rest: Vec::new(), nulled: nulled.clone() };
    session.load(&sql, lines, &table.table).await?;
    Ok(nulled.load(Ordering::Relaxed))
}

/// Encodes lines while the driver sends them, so that a large batch is never held as text as a whole.
struct Lines {
    encoder: RowEncoder,
    rows: usize,
    next: usize,
    rest: Vec<u8>,
    nulled: Arc<AtomicU64>,
}

impl Iterator for Lines {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut chunk = std::mem::take(&mut self.rest);
        chunk.reserve(LOAD_CHUNK);
        while chunk.len() < LOAD_CHUNK && self.next < self.rows {
            self.encoder.write_line(self.next, &mut chunk);
            self.next += 1;
        }
        self.nulled.store(self.encoder.nulled, Ordering::Relaxed);
        if chunk.len() > 2 * LOAD_CHUNK {
            self.rest = chunk.split_off(LOAD_CHUNK);
        }
        (!chunk.is_empty()).then_some(chunk)
    }
}

async fn replace(
    session: &mut Session,
    table: &TagTable,
    rows: &RecordBatch,
    updated_at: &str,
    zone: Tz,
) -> Result<u64, SinkError> {
    if rows.num_rows() == 0 {
        return Ok(0);
    }
    let columns: Vec<String> = table.key.iter().chain(&table.columns).map(|column| quote_name(&column.name)).collect();
    let head = format!("REPLACE INTO {} ({}, `_updated_at`) VALUES ", quote_name(&table.table), columns.join(", "));
    let row_end = format!(",{})", quote_text(updated_at));
    let most = session.abilities.max_packet.saturating_sub(1024).min(STATEMENT_BYTES);

    let mut encoder = RowEncoder::new(rows, zone).map_err(|error| refused(table, &error))?;
    let mut sql = Vec::with_capacity(most.min(rows.num_rows() * 64 + head.len()));
    sql.extend_from_slice(head.as_bytes());
    for row in 0..rows.num_rows() {
        let start = sql.len();
        sql.extend_from_slice(if start > head.len() { b",(" } else { b"(" });
        encoder.write_literals(row, &mut sql);
        sql.extend_from_slice(row_end.as_bytes());
        if sql.len() > most && start > head.len() {
            // The row that does not fit any more opens the next statement; the comma before it is dropped.
            let last = sql.split_off(start + 1);
            sql.truncate(start);
            session.write(&sql, &table.table).await?;
            sql.clear();
            sql.extend_from_slice(head.as_bytes());
            sql.extend_from_slice(&last);
        }
    }
    session.write(&sql, &table.table).await?;
    Ok(encoder.nulled)
}

/// Deletes the rows of these keys.
pub(super) async fn delete(
    session: &mut Session,
    table: &TagTable,
    keys: &RecordBatch,
    zone: Tz,
) -> Result<(), SinkError> {
    let names: Vec<String> = table.key.iter().map(|column| quote_name(&column.name)).collect();
    let head = format!("DELETE FROM {} WHERE ", quote_name(&table.table));
    let most = session.abilities.max_packet.saturating_sub(1024).min(STATEMENT_BYTES);
    let mut encoder = RowEncoder::new(keys, zone).map_err(|error| refused(table, &error))?;
    let mut row = 0;
    while row < keys.num_rows() {
        let mut sql = head.clone().into_bytes();
        let first = row;
        // One column goes as IN, several as OR of ANDs: every server answers both by ranges of the primary key.
        if let [name] = names.as_slice() {
            sql.extend_from_slice(name.as_bytes());
            sql.extend_from_slice(b" IN (");
        }
        while row < keys.num_rows() && row - first < DELETE_KEYS && (row == first || sql.len() < most / 2) {
            let several = names.len() > 1;
            if row > first {
                sql.extend_from_slice(if several { b" OR " } else { b"," });
            }
            if several {
                for (index, name) in names.iter().enumerate() {
                    sql.extend_from_slice(if index == 0 { b"(" } else { b" AND " });
                    sql.extend_from_slice(name.as_bytes());
                    sql.push(b'=');
                    encoder.write_literal(index, row, &mut sql);
                }
                sql.push(b')');
            } else {
                encoder.write_literal(0, row, &mut sql);
            }
            row += 1;
        }
        if names.len() == 1 {
            sql.push(b')');
        }
        session.execute(&sql, Some(&table.table)).await?;
    }
    Ok(())
}

fn refused(table: &TagTable, error: &ArrowError) -> SinkError {
    SinkError::Table { table: table.table.clone(), message: error.to_string() }
}
