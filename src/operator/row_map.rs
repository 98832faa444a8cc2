//! Encoded rows in their order, each with a value: what is kept of one key.
//!
//! Most keys have one row or a few, of which a node of a B-tree, with room for eleven, would be mostly empty. So few rows are a
//! sorted list that is as long as it must be, and many are a tree.

use std::collections::{BTreeMap, btree_map};
use std::slice;

use crate::operator::rows::{heap_bytes, tree_bytes};

/// An encoded row.
pub type Row = Box<[u8]>;

/// A longer list becomes a tree, and a tree of less than half as many rows a list again.
const MOST_LISTED: usize = 32;

/// Values by row.
#[derive(Debug, Clone)]
pub struct RowMap<V>(Entries<V>);

#[derive(Debug, Clone)]
enum Entries<V> {
    Listed(Vec<(Row, V)>),
    #[expect(clippy::box_collection, reason = "every key has room for what few have")]
    Tree(Box<BTreeMap<Row, V>>),
}

impl<V> Default for RowMap<V> {
    fn default() -> Self {
        RowMap(Entries::Listed(Vec::new()))
    }
}

/// Where a row is, or would be.
fn place<V>(list: &[(Row, V)], row: &[u8]) -> Result<usize, usize> {
    list.binary_search_by(|(known, _)| known.as_ref().cmp(row))
}

impl<V> RowMap<V> {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Entries::Listed(list) => list.len(),
            Entries::Tree(tree) => tree.len(),
        }
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a row.
    pub fn get(&self, row: &[u8]) -> Option<&V> {
        match &self.0 {
            Entries::Listed(list) => place(list, row).ok().map(|at| &list[at].1),
            Entries::Tree(tree) => tree.get(row),
        }
    }

    /// The same for who changes it.
    pub fn get_mut(&mut self, row: &[u8]) -> Option<&mut V> {
        match &mut self.0 {
            Entries::Listed(list) => place(list, row).ok().map(|at| &mut list[at].1),
            Entries::Tree(tree) => tree.get_mut(row),
        }
    }

    /// Returns what the row had before.
    pub fn insert(&mut self, row: Row, value: V) -> Option<V> {
        match &mut self.0 {
            Entries::Listed(list) => match place(list, &row) {
                Ok(at) => Some(std::mem::replace(&mut list[at].1, value)),
                Err(at) if list.len() < MOST_LISTED => {
                    if list.len() == list.capacity() {
                        list.reserve_exact((list.len() / 2).max(1));
                    }
                    list.insert(at, (row, value));
                    None
                }
                Err(_) => {
                    let mut tree: BTreeMap<Row, V> = std::mem::take(list).into_iter().collect();
                    tree.insert(row, value);
                    self.0 = Entries::Tree(Box::new(tree));
                    None
                }
            },
            Entries::Tree(tree) => tree.insert(row, value),
        }
    }

    /// Returns what the row had.
    pub fn remove(&mut self, row: &[u8]) -> Option<V> {
        let removed = match &mut self.0 {
            Entries::Listed(list) => {
                let (_, value) = list.remove(place(list, row).ok()?);
                if list.capacity() >= 2 * list.len() {
                    list.shrink_to_fit();
                }
                Some(value)
            }
            Entries::Tree(tree) => tree.remove(row),
        };
        self.list_few();
        removed
    }

    /// The rows behind one, which are no longer here.
    pub fn split_behind(&mut self, row: &[u8]) -> Vec<Row> {
        let behind = match &mut self.0 {
            Entries::Listed(list) => {
                let behind = place(list, row).map_or_else(|at| at, |at| at + 1);
                let gone = list.drain(behind..).map(|(row, _)| row).collect();
                list.shrink_to_fit();
                gone
            }
            Entries::Tree(tree) => {
                let mut behind = tree.split_off(row);
                tree.extend(behind.remove_entry(row));
                behind.into_keys().collect()
            }
        };
        self.list_few();
        behind
    }

    fn list_few(&mut self) {
        if let Entries::Tree(tree) = &mut self.0
            && tree.len() < MOST_LISTED / 2
        {
            self.0 = Entries::Listed(std::mem::take(tree.as_mut()).into_iter().collect());
        }
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        *self = RowMap::default();
    }

    /// The first row.
    pub fn first(&self) -> Option<&Row> {
        match &self.0 {
            Entries::Listed(list) => list.first().map(|(row, _)| row),
            Entries::Tree(tree) => tree.first_key_value().map(|(row, _)| row),
        }
    }

    /// The last row.
    pub fn last(&self) -> Option<&Row> {
        match &self.0 {
            Entries::Listed(list) => list.last().map(|(row, _)| row),
            Entries::Tree(tree) => tree.last_key_value().map(|(row, _)| row),
        }
    }

    /// In the order of the rows.
    pub fn iter(&self) -> Iter<'_, V> {
        Iter(match &self.0 {
            Entries::Listed(list) => Rows::Listed(list.iter()),
            Entries::Tree(tree) => Rows::Tree(tree.iter()),
        })
    }

    /// The values in that order, for who changes them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Row, &mut V)> {
        let (list, tree) = match &mut self.0 {
            Entries::Listed(list) => (Some(list), None),
            Entries::Tree(tree) => (None, Some(tree)),
        };
        let listed = list.into_iter().flatten().map(|(row, value)| (&*row, value));
        listed.chain(tree.into_iter().flat_map(|tree| tree.iter_mut()))
    }

    /// Bytes on the heap, estimated.
    pub fn bytes(&self) -> usize {
        let entries = match &self.0 {
            Entries::Listed(list) => heap_bytes(list.capacity() * size_of::<(Row, V)>()),
            Entries::Tree(tree) => heap_bytes(size_of::<BTreeMap<Row, V>>()) + tree_bytes::<V>(tree.len()),
        };
        entries + self.iter().map(|(row, _)| heap_bytes(row.len())).sum::<usize>()
    }
}

/// Rows in their order, with their values.
pub struct Iter<'a, V>(Rows<'a, V>);

enum Rows<'a, V> {
    Listed(slice::Iter<'a, (Row, V)>),
    Tree(btree_map::Iter<'a, Row, V>),
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (&'a Row, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Rows::Listed(list) => list.next().map(|(row, value)| (row, value)),
            Rows::Tree(tree) => tree.next(),
        }
    }
}

impl<'a, V> IntoIterator for &'a RowMap<V> {
    type Item = (&'a Row, &'a V);
    type IntoIter = Iter<'a, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn it_is_what_a_tree_is_whatever_is_done_to_it() {
        let mut random = StdRng::seed_from_u64(3);
        let row = |number: u8| -> Row { [vec![number; usize::from(number % 3)], vec![number]].concat().into() };
        let (mut map, mut tree) = (RowMap::default(), BTreeMap::new());
        let (mut lists, mut trees) = (0, 0);
        for value in 0..20_000_i64 {
            let number = row(random.random());
            // Growing and shrinking in turn, past both ends of what is a list.
            let is_growing = value / 200 % 2 == 0;
            match random.random_range(0..100) {
                0 => {
                    let behind: Vec<Row> = tree.keys().filter(|known| **known > number).cloned().collect();
                    tree.retain(|known, _| *known <= number);
                    assert_eq!(map.split_behind(&number), behind);
                }
                1 if !is_growing => {
                    map.clear();
                    tree.clear();
                }
                2..10 => {
                    let change = |known: &mut i64| std::mem::replace(known, value);
                    assert_eq!(map.get_mut(&number).map(change), tree.get_mut(&number).map(change));
                }
                10..70 if is_growing => assert_eq!(map.insert(number.clone(), value), tree.insert(number, value)),
                10..20 => assert_eq!(map.insert(number.clone(), value), tree.insert(number, value)),
                _ => assert_eq!(map.remove(&number), tree.remove(&number)),
            }
            assert!(map.iter().eq(tree.iter()));
            assert!(map.iter_mut().map(|(row, value)| (row, *value)).eq(tree.iter().map(|(row, value)| (row, *value))));
            assert_eq!((map.len(), map.is_empty()), (tree.len(), tree.is_empty()));
            assert_eq!((map.first(), map.last()), (tree.keys().next(), tree.keys().next_back()));
            let asked = row(random.random());
            assert_eq!(map.get(&asked), tree.get(&asked));
            match map.0 {
                Entries::Listed(_) => lists += 1,
                Entries::Tree(_) => trees += 1,
            }
        }
        assert!(lists > 1_000 && trees > 1_000, "{lists} {trees}");
    }

    #[test]
    fn one_row_takes_little_more_than_itself() {
        let mut map = RowMap::default();
        map.insert(vec![7; 40].into(), 1_i64);
        assert_eq!(map.bytes(), heap_bytes(24) + heap_bytes(40));
        map.remove(&[7; 40]);
        assert_eq!(map.bytes(), 0);
    }
}
