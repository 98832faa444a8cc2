//! The state of one aggregate for all groups of a shard, in columns by slot.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, LargeBinaryArray, UInt64Array,
    new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type};
use arrow::row::{RowConverter, Rows};

use crate::operator::aggregate::collected::Collected;
use crate::operator::aggregate::exact_sum::ExactSum;
use crate::operator::aggregate::value_set::{Entries, Extreme, Multisets, ValueCounts};
use crate::operator::changed::SlotSet;
use crate::operator::{OperatorError, rows};
use crate::plan::flow::{AggregateCall, AggregateFunction};
use crate::plan::wording::sql_type;

/// What an accumulator reads of a batch, computed once for all shards.
#[derive(Debug)]
pub struct Argument {
    /// One value a row of the batch; `None` for COUNT(*).
    pub values: Option<ArrayRef>,
    /// The same in row format, for functions that compare or tell values apart.
    pub encoded: Option<Rows>,
    /// FILTER (WHERE …), NULL being false.
    pub filter: Option<BooleanArray>,
}

impl Argument {
    /// What a call reads, encoded where it tells values apart.
    pub fn new(
        call: &AggregateCall,
        values: Option<ArrayRef>,
        filter: Option<BooleanArray>,
    ) -> Result<Self, OperatorError> {
        use AggregateFunction::{Collected, CountDistinct, Max, Min};
        let told_apart = match (&values, call.function) {
            // Each value stands beside how often it is there.
            (Some(values), CountDistinct) if call.merges => {
                values.as_struct_opt().and_then(|both| both.columns().first())
            }
            (Some(values), CountDistinct | Min | Max | Collected) => Some(values),
            _ => None,
        };
        let encode = |values: &ArrayRef| -> Result<Rows, OperatorError> {
            Ok(rows::converter([values.data_type()])?.convert_columns(std::slice::from_ref(values))?)
        };
        let encoded = told_apart.map(encode).transpose()?;
        Ok(Argument { values, encoded, filter })
    }
}

/// Rows of a batch and the slots they fall into.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// One slot for each entry of `rows`.
    pub slots: &'a [u32],
    /// Rows of the batch.
    pub rows: &'a [u32],
    /// The weight of every row of the batch; `None` for all +1.
    pub weights: Option<&'a [i64]>,
}

impl Selection<'_> {
    pub(super) fn each(&self, argument: &Argument, mut apply: impl FnMut(usize, usize, i64)) {
        let nulls = argument.values.as_ref().and_then(|values| values.nulls());
        if nulls.is_none() && argument.filter.is_none() && self.weights.is_none() {
            for (slot, row) in self.slots.iter().zip(self.rows) {
                apply(*slot as usize, *row as usize, 1);
            }
            return;
        }
        for (slot, row) in self.slots.iter().zip(self.rows) {
            let row = *row as usize;
            if nulls.is_some_and(|nulls| nulls.is_null(row))
                || argument.filter.as_ref().is_some_and(|filter| !filter.value(row))
            {
                continue;
            }
            apply(*slot as usize, row, self.weights.map_or(1, |weights| weights[row]));
        }
    }
}

/// State of one aggregate.
#[derive(Debug)]
pub struct Accumulator {
    function: AggregateFunction,
    output: DataType,
    /// It takes partial aggregates in place of values.
    merges: bool,
    /// Non-NULL inputs of each slot, by weight.
    pub(super) counts: Vec<i64>,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    Count,
    Whole { sums: Vec<i128>, scale: i8 },
    Float { sums: Vec<ExactSum> },
    Distinct { values: ValueCounts },
    Extreme { values: Extreme, converter: Arc<RowConverter> },
    Collected(Collected),
}

fn set_of(slots: &[u32]) -> SlotSet {
    let mut set = SlotSet::default();
    set.extend(slots);
    set
}

impl State {
    /// Sums of values of a type, or of partial sums.
    fn sums(data_type: &DataType) -> Option<State> {
        match data_type {
            DataType::Int64 | DataType::UInt64 => Some(State::Whole { sums: Vec::new(), scale: 0 }),
            DataType::Decimal128(_, scale) => Some(State::Whole { sums: Vec::new(), scale: *scale }),
            DataType::Float64 | DataType::LargeBinary => Some(State::Float { sums: Vec::new() }),
            DataType::Struct(count_and_sum) => State::sums(count_and_sum.get(1)?.data_type()),
            _ => None,
        }
    }
}

impl Accumulator {
    /// An empty one; `append_only` when its input never retracts.
    pub fn new(call: &AggregateCall, append_only: bool) -> Result<Self, OperatorError> {
        let argument = call.argument.as_ref().map(|argument| &argument.data_type);
        let state = match (call.function, argument) {
            (AggregateFunction::Collected, Some(data_type)) => match &call.collected {
                Some(function) => State::Collected(Collected::new(function, data_type)?),
                None => return Err(OperatorError::Expression("an aggregate without a function".to_string())),
            },
            (AggregateFunction::Count, _) | (_, None) => State::Count,
            (AggregateFunction::CountDistinct, Some(_)) => State::Distinct { values: ValueCounts::default() },
            (AggregateFunction::Min | AggregateFunction::Max, Some(data_type)) => State::Extreme {
                values: Extreme::new(call.function == AggregateFunction::Max, append_only),
                converter: Arc::new(rows::converter([data_type])?),
            },
            (AggregateFunction::Sum | AggregateFunction::Avg, Some(data_type)) => {
                State::sums(data_type).ok_or_else(|| {
                    OperatorError::Expression(format!("{} of {data_type} does not stream", call.function.name()))
                })?
            }
        };
        Ok(Accumulator {
            function: call.function,
            output: call.data_type.clone(),
            merges: call.merges,
            counts: Vec::new(),
            state,
        })
    }

    /// Makes room for that many slots.
    pub fn grow(&mut self, slots: usize) {
        self.counts.resize(slots, 0);
        match &mut self.state {
            State::Count => {}
            State::Whole { sums, .. } => sums.resize(slots, 0),
            State::Float { sums } => sums.resize(slots, ExactSum::default()),
            State::Distinct { values } => values.grow(slots),
            State::Extreme { values, .. } => values.grow(slots),
            State::Collected(collected) => collected.values.grow(slots),
        }
    }

    /// Takes rows.
    pub fn update(&mut self, selection: Selection<'_>, argument: &Argument) -> Result<(), OperatorError> {
        // The extreme of extremes is found as that of values is.
        if self.merges && !matches!(self.state, State::Extreme { .. }) {
            return self.merge(selection, argument);
        }
        let counts = &mut self.counts;
        let encoded = || {
            argument
                .encoded
                .as_ref()
                .ok_or_else(|| OperatorError::Expression("the argument was not encoded".to_string()))
        };
        match &mut self.state {
            State::Count => selection.each(argument, |slot, _, weight| counts[slot] += weight),
            State::Whole { sums, .. } => {
                let Some(values) = &argument.values else { return Ok(()) };
                let mut overflow = false;
                let mut add = |slot: usize, value: i128, weight: i64| {
                    counts[slot] += weight;
                    let scaled = if weight == 1 { Some(value) } else { value.checked_mul(i128::from(weight)) };
                    match scaled.and_then(|value| sums[slot].checked_add(value)) {
                        Some(sum) => sums[slot] = sum,
                        None => overflow = true,
                    }
                };
                match values.data_type() {
                    DataType::Int64 => {
                        let values = values.as_primitive::<Int64Type>().values();
                        selection.each(argument, |slot, row, weight| add(slot, i128::from(values[row]), weight));
                    }
                    DataType::UInt64 => {
                        let values = values.as_primitive::<UInt64Type>().values();
                        selection.each(argument, |slot, row, weight| add(slot, i128::from(values[row]), weight));
                    }
                    _ => {
                        let values = values.as_primitive::<Decimal128Type>().values();
                        selection.each(argument, |slot, row, weight| add(slot, values[row], weight));
                    }
                }
                if overflow {
                    return Err(self.overflow());
                }
            }
            State::Float { sums } => {
                let Some(values) = &argument.values else { return Ok(()) };
                let values = values.as_primitive::<Float64Type>().values();
                selection.each(argument, |slot, row, weight| {
                    counts[slot] += weight;
                    sums[slot].add(values[row], weight);
                });
            }
            State::Distinct { values } => {
                let encoded = encoded()?;
                selection.each(argument, |slot, row, weight| {
                    counts[slot] += weight;
                    values.add(slot as u32, encoded.row(row).data(), weight);
                });
            }
            State::Extreme { values, .. } => {
                let encoded = encoded()?;
                selection.each(argument, |slot, row, weight| {
                    counts[slot] += weight;
                    values.add(slot, encoded.row(row).data(), weight);
                });
            }
            State::Collected(collected) => {
                let encoded = encoded()?;
                selection.each(argument, |slot, row, weight| {
                    counts[slot] += weight;
                    collected.values.add(slot, encoded.row(row).data(), weight);
                });
            }
        }
        Ok(())
    }

    pub(super) fn overflow(&self) -> OperatorError {
        OperatorError::Overflow { function: self.function.name(), data_type: sql_type(&self.output) }
    }

    /// The results of these slots.
    pub fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef, OperatorError> {
        let counts = &self.counts;
        let averages = self.function == AggregateFunction::Avg;
        match &self.state {
            State::Count => Ok(Arc::new(slots.iter().map(|slot| counts[*slot as usize]).collect::<Int64Array>())),
            State::Distinct { values } => {
                Ok(Arc::new(slots.iter().map(|slot| values.distinct(*slot)).collect::<Int64Array>()))
            }
            State::Float { sums } => Ok(Arc::new(
                slots
                    .iter()
                    .map(|slot| {
                        let (count, sum) = (counts[*slot as usize], &sums[*slot as usize]);
                        (count != 0).then(|| if averages { sum.value() / count as f64 } else { sum.value() })
                    })
                    .collect::<Float64Array>(),
            )),
            State::Whole { sums, scale } => {
                let mut results: Vec<Option<i128>> = Vec::with_capacity(slots.len());
                let factor = match (&self.output, averages) {
                    (DataType::Decimal128(_, output_scale), true) => {
                        10_i128.checked_pow((output_scale - scale).max(0) as u32).ok_or_else(|| self.overflow())?
                    }
                    _ => 1,
                };
                for slot in slots {
                    let (count, sum) = (counts[*slot as usize], sums[*slot as usize]);
                    results.push(match (count, averages) {
                        (0, _) => None,
                        (_, false) => Some(sum),
                        // Truncates towards zero, as DataFusion's AVG of decimals does.
                        (_, true) => Some(sum.checked_mul(factor).ok_or_else(|| self.overflow())? / i128::from(count)),
                    });
                }
                self.whole_results(results)
            }
            State::Collected(collected) => collected.evaluate(slots, &self.output),
            State::Extreme { values, converter } => {
                let null = converter.convert_columns(&[new_null_array(&self.output, 1)])?;
                let null = null.row(0);
                let results = slots.iter().map(|slot| values.get(*slot as usize).unwrap_or(null.data()));
                let mut columns = rows::decode(converter, results)?;
                columns.pop().ok_or_else(|| OperatorError::Expression("no column was decoded".to_string()))
            }
        }
    }

    fn whole_results(&self, results: Vec<Option<i128>>) -> Result<ArrayRef, OperatorError> {
        match &self.output {
            DataType::Decimal128(precision, scale) => {
                let array = results.into_iter().collect::<Decimal128Array>();
                let array = array.with_precision_and_scale(*precision, *scale)?;
                array.validate_decimal_precision(*precision).map_err(|_| self.overflow())?;
                Ok(Arc::new(array))
            }
            DataType::UInt64 => {
                let results = results.into_iter().map(|sum| sum.map(u64::try_from).transpose());
                Ok(Arc::new(results.collect::<Result<UInt64Array, _>>().map_err(|_| self.overflow())?))
            }
            DataType::Int64 => {
                let results = results.into_iter().map(|sum| sum.map(i64::try_from).transpose());
                Ok(Arc::new(results.collect::<Result<Int64Array, _>>().map_err(|_| self.overflow())?))
            }
            other => Ok(cast(&results.into_iter().collect::<Decimal128Array>(), other)?),
        }
    }

    /// Forgets the values of slots that leave memory.
    pub fn let_out(&mut self, slots: &[u32]) {
        if let State::Distinct { values } = &mut self.state {
            values.let_out(&set_of(slots));
        }
        slots.iter().for_each(|slot| self.clear(*slot));
    }

    /// Forgets a slot's values.
    pub fn clear(&mut self, slot: u32) {
        let index = slot as usize;
        self.counts[index] = 0;
        match &mut self.state {
            State::Count => {}
            State::Whole { sums, .. } => sums[index] = 0,
            State::Float { sums } => sums[index] = ExactSum::default(),
            State::Distinct { values } => values.clear(slot),
            State::Extreme { values, .. } => values.clear(index),
            State::Collected(collected) => collected.values.clear(index),
        }
    }

    /// The state of these slots: one column of counts and one of values, or of nothing.
    pub fn snapshot(&self, slots: &[u32]) -> [ArrayRef; 2] {
        let counts: Int64Array = slots.iter().map(|slot| self.counts[*slot as usize]).collect();
        let values: LargeBinaryArray = match &self.state {
            State::Whole { sums, .. } => {
                LargeBinaryArray::from_iter_values(slots.iter().map(|slot| sums[*slot as usize].to_le_bytes()))
            }
            State::Float { sums } => {
                LargeBinaryArray::from_iter_values(slots.iter().map(|slot| sums[*slot as usize].to_bytes()))
            }
            State::Extreme { values, .. } => slots.iter().map(|slot| values.best(*slot as usize)).collect(),
            State::Count | State::Distinct { .. } | State::Collected(_) => LargeBinaryArray::new_null(slots.len()),
        };
        [Arc::new(counts), Arc::new(values)]
    }

    /// The values of all slots, where values are kept.
    pub fn entries(&self) -> Option<Entries> {
        match &self.state {
            State::Distinct { values } => Some(values.entries()),
            State::Extreme { values, .. } => values.all().map(Multisets::entries),
            State::Collected(collected) => Some(collected.values.entries()),
            State::Count | State::Whole { .. } | State::Float { .. } => None,
        }
    }

    /// The values of these slots, where values are kept.
    pub fn entries_of(&self, slots: &[u32]) -> Option<Entries> {
        let own = || slots.iter().copied();
        match &self.state {
            State::Distinct { values } => Some(values.entries_of(&set_of(slots))),
            State::Extreme { values, .. } => values.all().map(|all| all.entries_of(own())),
            State::Collected(collected) => Some(collected.values.entries_of(own())),
            State::Count | State::Whole { .. } | State::Float { .. } => None,
        }
    }

    /// The values that have changed; `None` for all, or where none are kept.
    pub fn changed_entries(&mut self) -> Option<Entries> {
        match &mut self.state {
            State::Distinct { values } => values.changed_entries(),
            State::Extreme { values, .. } => values.all_mut()?.changed_entries(),
            State::Collected(collected) => collected.values.changed_entries(),
            State::Count | State::Whole { .. } | State::Float { .. } => None,
        }
    }

    /// Whether a checkpoint holds the values that are here now.
    pub fn set_saved(&mut self, is_saved: bool) {
        match &mut self.state {
            State::Distinct { values } => values.set_saved(is_saved),
            State::Extreme { values, .. } => {
                if let Some(all) = values.all_mut() {
                    all.set_saved(is_saved);
                }
            }
            State::Collected(collected) => collected.values.set_saved(is_saved),
            State::Count | State::Whole { .. } | State::Float { .. } => {}
        }
    }

    /// Takes the state of a slot over that holds none yet.
    pub fn load(&mut self, slot: u32, count: i64, value: Option<&[u8]>) -> Result<(), OperatorError> {
        let index = slot as usize;
        self.counts[index] = count;
        let damaged = || OperatorError::State {
            what: self.function.name().to_string(),
            reason: "a value has a wrong length".to_string(),
        };
        match (&mut self.state, value) {
            (State::Whole { sums, .. }, Some(bytes)) => {
                sums[index] = i128::from_le_bytes(bytes.try_into().map_err(|_| damaged())?);
            }
            (State::Float { sums }, Some(bytes)) => sums[index] = ExactSum::from_bytes(bytes).ok_or_else(damaged)?,
            (State::Extreme { values, .. }, Some(best)) => values.put(index, best, 1),
            _ => {}
        }
        Ok(())
    }

    /// Takes one entry of a set of values over.
    pub fn load_entry(&mut self, slot: u32, value: &[u8], weight: i64) {
        match &mut self.state {
            State::Distinct { values } => values.put(slot, value, weight),
            State::Extreme { values, .. } => values.put(slot as usize, value, weight),
            State::Collected(collected) => collected.values.put(slot as usize, value, weight),
            _ => {}
        }
    }

    /// Bytes in use, estimated.
    pub fn bytes(&self) -> usize {
        let values = match &self.state {
            State::Count => 0,
            State::Whole { sums, .. } => sums.capacity() * 16,
            State::Float { sums } => {
                sums.capacity() * size_of::<ExactSum>() + sums.iter().map(ExactSum::heap_bytes).sum::<usize>()
            }
            State::Distinct { values } => values.bytes(),
            State::Extreme { values, .. } => values.bytes(),
            State::Collected(collected) => collected.values.bytes(),
        };
        self.counts.capacity() * 8 + values
    }
}
