//! JSON objects: a small trie of the wanted paths is walked along with the scanner.

use super::column::{Value, shortened};
use super::scan::{self, Kind, MAX_DEPTH, Malformed, Scanner, Token};
use super::{DecodeError, RowBuilder};
use crate::catalog::Stream;

/// Finds the wanted fields of one record after the other.
pub(super) struct JsonReader {
    nodes: Vec<Node>,
    /// One a declared column: where its value is in the current record.
    slots: Vec<Token>,
    /// The declared columns that are looked at, and whether they keep objects as text.
    wanted: Vec<(usize, bool)>,
    /// Values that are not a slice of the record: unescaped strings, compact JSON.
    scratch: String,
    visits: u64,
}

/// A place in the objects of a record that a wanted path leads to or through.
#[derive(Default)]
struct Node {
    /// Columns whose path ends here.
    slots: Vec<usize>,
    /// Columns whose path goes on from here.
    below: Vec<usize>,
    children: Vec<Child>,
    /// What the keys of the last object at this place led to, by position: producers keep their order.
    predicted: Vec<Prediction>,
}

struct Child {
    key: String,
    lower_key: String,
    node: usize,
    /// The visit in which its exact key was seen: from then on a key of another case does not count.
    exact_in: u64,
}

struct Prediction {
    key: Vec<u8>,
    child: Option<(usize, bool)>,
}

/// Objects longer than this are looked up key by key.
const MOST_PREDICTIONS: usize = 256;

impl JsonReader {
    pub(super) fn new(stream: &Stream, rows: &RowBuilder) -> Self {
        let wanted: Vec<(usize, bool)> = rows.slots().collect();
        let mut nodes = vec![Node::default()];
        for (slot, _) in &wanted {
            let mut at = 0;
            for key in &stream.columns[*slot].path {
                nodes[at].below.push(*slot);
                at = match nodes[at].children.iter().find(|child| child.key == *key) {
                    Some(child) => child.node,
                    None => {
                        let node = nodes.len();
                        let lower_key = key.to_lowercase();
                        nodes[at].children.push(Child { key: key.clone(), lower_key, node, exact_in: 0 });
                        nodes.push(Node::default());
                        node
                    }
                };
            }
            nodes[at].slots.push(*slot);
        }
        let slots = vec![Token::MISSING; stream.columns.len()];
        JsonReader { nodes, slots, wanted, scratch: String::new(), visits: 0 }
    }

    /// Finds the wanted fields of a record.
    pub(super) fn read(&mut self, text: &str) -> Result<(), DecodeError> {
        for (slot, _) in &self.wanted {
            self.slots[*slot] = Token::MISSING;
        }
        let mut walk = Walk {
            scanner: Scanner::new(text),
            nodes: &mut self.nodes,
            slots: &mut self.slots,
            visits: &mut self.visits,
            text,
        };
        if walk.scanner.peek() != Some(b'{') {
            return Err(DecodeError(format!("expected a JSON object, found {}", shortened(text))));
        }
        walk.object(0, 0).and_then(|()| walk.scanner.end()).map_err(not_json)?;
        self.scratch.clear();
        for (slot, keeps_json) in &self.wanted {
            let token = &mut self.slots[*slot];
            let start = self.scratch.len();
            match token.kind {
                Kind::EscapedText => scan::unescape(&text[token.span()], &mut self.scratch)
                    .map_err(|what| not_json(Malformed { what, at: token.start as usize }))?,
                Kind::Composite if *keeps_json => scan::compact(&text[token.span()], &mut self.scratch),
                _ => continue,
            }
            *token = Token { kind: Kind::Scratch, start: start as u32, end: self.scratch.len() as u32 };
        }
        Ok(())
    }

    /// The value of a declared column in the record `text` that was just read.
    #[inline]
    pub(super) fn value<'a>(&'a self, slot: usize, text: &'a str) -> Value<'a> {
        let token = self.slots[slot];
        match token.kind {
            Kind::Missing => Value::Missing,
            Kind::Null => Value::Null,
            Kind::True => Value::Bool(true),
            Kind::False => Value::Bool(false),
            Kind::Number => Value::Number(&text[token.span()]),
            Kind::Text | Kind::EscapedText => Value::Text(&text[token.span()]),
            Kind::Scratch => Value::Text(&self.scratch[token.span()]),
            Kind::Composite => Value::Composite(&text[token.span()]),
            Kind::NotAnObject => Value::NotAnObject(&text[token.span()]),
        }
    }
}

fn not_json(malformed: Malformed) -> DecodeError {
    DecodeError(format!("not valid JSON: {} at byte {}", malformed.what, malformed.at))
}

/// One record being read.
struct Walk<'a, 'r> {
    scanner: Scanner<'a>,
    text: &'a str,
    nodes: &'r mut [Node],
    slots: &'r mut [Token],
    visits: &'r mut u64,
}

impl Walk<'_, '_> {
    /// An object at `node`; the scanner stands on its brace.
    fn object(&mut self, node: usize, depth: usize) -> Result<(), Malformed> {
        if depth >= MAX_DEPTH {
            return self.scanner.malformed("nested too deeply");
        }
        *self.visits += 1;
        let visit = *self.visits;
        self.scanner.bump();
        if self.scanner.peek() == Some(b'}') {
            self.scanner.bump();
            return Ok(());
        }
        let mut position = 0;
        loop {
            let key = self.scanner.key()?;
            match self.find(node, position, key)? {
                None => {
                    self.scanner.value(depth + 1)?;
                }
                Some((child, is_exact)) => {
                    let child = &mut self.nodes[node].children[child];
                    if is_exact {
                        child.exact_in = visit;
                    }
                    let (below, counts) = (child.node, is_exact || child.exact_in != visit);
                    if counts {
                        self.field(below, depth + 1)?;
                    } else {
                        self.scanner.value(depth + 1)?;
                    }
                }
            }
            position += 1;
            match self.scanner.peek() {
                Some(b',') => self.scanner.bump(),
                Some(b'}') => {
                    self.scanner.bump();
                    return Ok(());
                }
                _ => return self.scanner.malformed("expected `,` or the closing bracket"),
            }
        }
    }

    /// The value of a field that `node` stands for.
    #[inline]
    fn field(&mut self, node: usize, depth: usize) -> Result<(), Malformed> {
        let next = self.scanner.peek();
        let token = if self.nodes[node].children.is_empty() {
            self.scanner.value(depth)?
        } else {
            // A field given twice: nothing of the first one may remain.
            for slot in &self.nodes[node].below {
                self.slots[*slot] = Token::MISSING;
            }
            if next == Some(b'{') {
                let start = self.scanner.position();
                self.object(node, depth)?;
                Token { kind: Kind::Composite, start: start as u32, end: self.scanner.position() as u32 }
            } else {
                let token = self.scanner.value(depth)?;
                let kind = if token.kind == Kind::Null { Kind::Null } else { Kind::NotAnObject };
                for slot in &self.nodes[node].below {
                    self.slots[*slot] = Token { kind, ..token };
                }
                token
            }
        };
        for slot in &self.nodes[node].slots {
            self.slots[*slot] = token;
        }
        Ok(())
    }

    /// Which child a key leads to, and whether it is spelt exactly so.
    #[inline]
    fn find(&mut self, node: usize, position: usize, key: Token) -> Result<Option<(usize, bool)>, Malformed> {
        let raw = &self.text[key.span()];
        let node = &mut self.nodes[node];
        if let Some(prediction) = node.predicted.get(position)
            && prediction.key == raw.as_bytes()
        {
            return Ok(prediction.child);
        }
        let child = if key.kind == Kind::EscapedText {
            let mut unescaped = String::new();
            scan::unescape(raw, &mut unescaped).map_err(|what| Malformed { what, at: key.start as usize })?;
            look_up(&node.children, &unescaped)
        } else {
            look_up(&node.children, raw)
        };
        let known = node.predicted.len();
        match node.predicted.get_mut(position) {
            Some(prediction) => {
                prediction.key.clear();
                prediction.key.extend_from_slice(raw.as_bytes());
                prediction.child = child;
            }
            None if position == known && position < MOST_PREDICTIONS => {
                node.predicted.push(Prediction { key: raw.as_bytes().to_vec(), child });
            }
            None => {}
        }
        Ok(child)
    }
}

fn look_up(children: &[Child], key: &str) -> Option<(usize, bool)> {
    if let Some(exact) = children.iter().position(|child| child.key == key) {
        return Some((exact, true));
    }
    let is_same = |child: &Child| match key.is_ascii() && child.key.is_ascii() {
        true => child.key.eq_ignore_ascii_case(key),
        false => child.lower_key == key.to_lowercase(),
    };
    children.iter().position(is_same).map(|found| (found, false))
}
