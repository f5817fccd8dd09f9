//! Patterns by their tokens: finding what matches a subject costs its tokens, not the number of patterns.
//!
//! Every pattern is a path of nodes from the root. All literal children of all nodes lie in one open
//! table keyed by parent and token, so a step is one probe and one node; `*` and `>` hang off their
//! parent directly. Nodes that nothing needs any more are taken away at once.
#![forbid(unsafe_code)]

use super::hash::Seed;
use crate::name::Pattern;

/// A set of (pattern, value) pairs that is asked which values match a subject.
#[derive(Debug)]
pub struct Trie<T> {
    seed: Seed,
    nodes: Vec<Node<T>>,
    free: Vec<u32>,
    children: Table,
    len: usize,
}

/// One cache line: a step along a subject touches one cell of the table and one of these.
#[derive(Debug)]
#[repr(align(64))]
struct Node<T> {
    token: Token,
    parent: u32,
    /// The children `*` and `>`, [`NONE`] without.
    star: u32,
    rest: u32,
    literals: u32,
    values: Values<T>,
}

const _: () = assert!(size_of::<Node<u32>>() == 64);

const ROOT: u32 = 0;
/// No child: the root is nobody's.
const NONE: u32 = ROOT;

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self {
            seed: Seed::default(),
            nodes: vec![Node::default()],
            free: Vec::new(),
            children: Table::default(),
            len: 0,
        }
    }
}

impl<T: Copy + Ord> Trie<T> {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a pair; `false` when it was there.
    pub fn insert(&mut self, pattern: &Pattern, value: T) -> bool {
        let mut at = ROOT;
        for token in pattern.as_str().split('.') {
            at = self.child(at, token).unwrap_or_else(|| self.grow(at, token));
        }
        let added = self.nodes[at as usize].values.insert(value);
        self.len += usize::from(added);
        added
    }

    /// Removes a pair; `false` when it was not there.
    pub fn remove(&mut self, pattern: &Pattern, value: T) -> bool {
        let mut at = ROOT;
        for token in pattern.as_str().split('.') {
            match self.child(at, token) {
                Some(child) => at = child,
                None => return false,
            }
        }
        let removed = self.nodes[at as usize].values.remove(value);
        if removed {
            self.len -= 1;
            self.prune(at);
        }
        removed
    }

    /// Appends the values of all patterns that match `subject` to `out`, in no particular order.
    ///
    /// A value that stands under several matching patterns comes several times. Allocates only when
    /// `out` has to grow.
    pub fn matches(&self, subject: &str, out: &mut Vec<T>) {
        self.walk(ROOT, subject.as_bytes(), out);
    }

    /// Follows literal tokens in a loop and `*` by recursion, so never deeper than the subject has tokens.
    fn walk(&self, mut at: u32, mut rest: &[u8], out: &mut Vec<T>) {
        loop {
            let node = &self.nodes[at as usize];
            if node.rest != NONE {
                out.extend_from_slice(self.nodes[node.rest as usize].values.as_slice());
            }
            let dot = rest.iter().position(|&byte| byte == b'.');
            let token = &rest[..dot.unwrap_or(rest.len())];
            let literal = if node.literals > 0 { self.literal(at, token) } else { None };
            let Some(dot) = dot else {
                for child in [literal.unwrap_or(NONE), node.star] {
                    if child != NONE {
                        out.extend_from_slice(self.nodes[child as usize].values.as_slice());
                    }
                }
                return;
            };
            rest = &rest[dot + 1..];
            at = match (literal, node.star) {
                (None, NONE) => return,
                (None, star) => star,
                (Some(literal), NONE) => literal,
                (Some(literal), star) => {
                    self.walk(star, rest, out);
                    literal
                }
            };
        }
    }

    fn child(&self, parent: u32, token: &str) -> Option<u32> {
        let node = &self.nodes[parent as usize];
        match token {
            "*" => Some(node.star).filter(|&child| child != NONE),
            ">" => Some(node.rest).filter(|&child| child != NONE),
            _ => self.literal(parent, token.as_bytes()),
        }
    }

    fn literal(&self, parent: u32, token: &[u8]) -> Option<u32> {
        self.children.find(self.tag(parent, token), |child| {
            let node = &self.nodes[child as usize];
            node.parent == parent && node.token.as_bytes() == token
        })
    }

    fn tag(&self, parent: u32, token: &[u8]) -> u32 {
        self.seed.hash(parent, token) as u32
    }

    fn grow(&mut self, parent: u32, token: &str) -> u32 {
        let node = Node { token: Token::new(token), parent, ..Node::default() };
        let child = match self.free.pop() {
            Some(index) => {
                self.nodes[index as usize] = node;
                index
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("four billion nodes do not fit in memory")
            }
        };
        let tag = self.tag(parent, token.as_bytes());
        let above = &mut self.nodes[parent as usize];
        match token {
            "*" => above.star = child,
            ">" => above.rest = child,
            _ => {
                above.literals += 1;
                self.children.insert(tag, child);
            }
        }
        child
    }

    /// Takes `at` away if nothing needs it, then its parent, and so on.
    fn prune(&mut self, mut at: u32) {
        while at != ROOT && self.nodes[at as usize].is_bare() {
            let node = std::mem::take(&mut self.nodes[at as usize]);
            let above = &mut self.nodes[node.parent as usize];
            if above.star == at {
                above.star = NONE;
            } else if above.rest == at {
                above.rest = NONE;
            } else {
                above.literals -= 1;
                let tag = self.tag(node.parent, node.token.as_bytes());
                self.children.remove(tag, at);
            }
            self.free.push(at);
            at = node.parent;
        }
        if self.len == 0 {
            // Nothing is left: give the memory back.
            *self = Self { seed: self.seed, ..Self::default() };
        }
    }
}

impl<T> Node<T> {
    fn is_bare(&self) -> bool {
        self.star == NONE && self.rest == NONE && self.literals == 0 && matches!(self.values, Values::None)
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            token: Token::new(""),
            parent: ROOT,
            star: NONE,
            rest: NONE,
            literals: 0,
            values: Values::None,
        }
    }
}

/// A token; nearly all are short enough to lie in their node.
#[derive(Debug)]
enum Token {
    Short(u8, [u8; 22]),
    Long(Box<[u8]>),
}

impl Token {
    fn new(text: &str) -> Self {
        let mut short = [0; 22];
        match short.get_mut(..text.len()) {
            Some(front) => {
                front.copy_from_slice(text.as_bytes());
                Self::Short(text.len() as u8, short)
            }
            None => Self::Long(text.as_bytes().into()),
        }
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }
}

/// A sorted set; nearly all hold one.
#[derive(Debug)]
enum Values<T> {
    None,
    One(T),
    Many(Vec<T>),
}

impl<T: Copy + Ord> Values<T> {
    fn as_slice(&self) -> &[T] {
        match self {
            Self::None => &[],
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }

    fn insert(&mut self, value: T) -> bool {
        let Err(at) = self.as_slice().binary_search(&value) else { return false };
        match self {
            Self::None => *self = Self::One(value),
            Self::One(first) => {
                let mut values = vec![*first];
                values.insert(at, value);
                *self = Self::Many(values);
            }
            Self::Many(values) => values.insert(at, value),
        }
        true
    }

    fn remove(&mut self, value: T) -> bool {
        let Ok(at) = self.as_slice().binary_search(&value) else { return false };
        match self {
            Self::None | Self::One(_) => *self = Self::None,
            Self::Many(values) => {
                values.remove(at);
                if let [last] = values[..] {
                    *self = Self::One(last);
                }
            }
        }
        true
    }
}

/// Child nodes by the hash of parent and token: open addressing, linear probing, at most half full.
///
/// A child lies at its tag or behind it without a hole between, so removing one moves later ones up.
#[derive(Debug, Default)]
struct Table {
    /// Tag and child; child [`NONE`] is a hole.
    cells: Vec<(u32, u32)>,
    len: usize,
}

impl Table {
    #[inline]
    fn find(&self, tag: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mask = self.cells.len().checked_sub(1)?;
        let mut at = tag as usize & mask;
        loop {
            match self.cells[at] {
                (_, NONE) => return None,
                (found, child) if found == tag && is_it(child) => return Some(child),
                _ => at = (at + 1) & mask,
            }
        }
    }

    fn insert(&mut self, tag: u32, child: u32) {
        if (self.len + 1) * 2 > self.cells.len() {
            let doubled = (self.cells.len() * 2).max(16);
            let old = std::mem::replace(&mut self.cells, vec![(0, NONE); doubled]);
            old.into_iter().filter(|cell| cell.1 != NONE).for_each(|cell| self.place(cell));
        }
        self.place((tag, child));
        self.len += 1;
    }

    fn place(&mut self, cell: (u32, u32)) {
        let mask = self.cells.len() - 1;
        let mut at = cell.0 as usize & mask;
        while self.cells[at].1 != NONE {
            at = (at + 1) & mask;
        }
        self.cells[at] = cell;
    }

    fn remove(&mut self, tag: u32, child: u32) {
        let mask = self.cells.len() - 1;
        let mut hole = tag as usize & mask;
        while self.cells[hole].1 != child {
            hole = (hole + 1) & mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let cell = self.cells[at];
            if cell.1 == NONE {
                break;
            }
            // A cell may move up to the hole unless that would put it before its tag.
            if at.wrapping_sub(cell.0 as usize) & mask >= at.wrapping_sub(hole) & mask {
                self.cells[hole] = cell;
                hole = at;
            }
        }
        self.cells[hole] = (0, NONE);
        self.len -= 1;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    fn found(trie: &Trie<u32>, subject: &str) -> Vec<u32> {
        let mut out = Vec::new();
        trie.matches(subject, &mut out);
        out.sort_unstable();
        out
    }

    /// What the grammar says, token by token.
    pub(crate) fn naive_match(pattern: &str, subject: &str) -> bool {
        let (mut wanted, mut tokens) = (pattern.split('.'), subject.split('.'));
        loop {
            match (wanted.next(), tokens.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some("*"), Some(_)) => {}
                (Some(literal), Some(token)) if literal == token => {}
                _ => return false,
            }
        }
    }

    #[test]
    fn literals_stars_and_rests() {
        let mut trie = Trie::new();
        for (value, text) in ["a.b", "a.*", "*.b", ">", "a.>", "*", "a.b.c", "*.*.>"].iter().enumerate() {
            assert!(trie.insert(&pattern(text), value as u32));
        }
        assert_eq!(found(&trie, "a.b"), [0, 1, 2, 3, 4]);
        assert_eq!(found(&trie, "a"), [3, 5]);
        assert_eq!(found(&trie, "a.b.c"), [3, 4, 6, 7]);
        assert_eq!(found(&trie, "x.y"), [3]);
    }

    #[test]
    fn one_pattern_holds_many_values_once_each() {
        let mut trie = Trie::new();
        let long = format!("{}.x", "t".repeat(200));
        for value in [5, 3, 9, 3] {
            let held = found(&trie, &long).contains(&value);
            assert_eq!(trie.insert(&pattern(&long), value), !held);
        }
        assert_eq!((found(&trie, &long), trie.len()), (vec![3, 5, 9], 3));
        assert!(trie.remove(&pattern(&long), 5) && !trie.remove(&pattern(&long), 5));
        assert_eq!(found(&trie, &long), [3, 9]);
    }

    #[test]
    fn removing_all_leaves_only_the_root() {
        let mut trie = Trie::new();
        let texts: Vec<String> = (0..500)
            .flat_map(|n| [format!("a.{n}.c"), format!("a.{n}.*"), format!("{n}.>"), format!("*.{n}")])
            .collect();
        for (value, text) in texts.iter().enumerate() {
            trie.insert(&pattern(text), value as u32);
        }
        for (value, text) in texts.iter().enumerate().skip(1).rev() {
            assert!(trie.remove(&pattern(text), value as u32));
        }
        assert_eq!((trie.nodes.len() - trie.free.len(), trie.children.len), (4, 3), "the path a, 0, c");
        assert!(trie.remove(&pattern(&texts[0]), 0));
        assert_eq!((trie.nodes.len(), trie.children.len, trie.is_empty()), (1, 0, true));
    }

    fn texts(wild: &'static str) -> impl Strategy<Value = String> {
        proptest::collection::vec(wild, 1..5).prop_map(|tokens| tokens.join("."))
    }

    proptest! {
        #[test]
        fn finds_what_the_naive_matcher_finds(
            steps in proptest::collection::vec((texts("[abc*]"), any::<bool>(), 0u32..4, any::<bool>()), 1..60),
            subjects in proptest::collection::vec(texts("[abcd]"), 1..20),
            colliding: bool,
        ) {
            let seed = if colliding { Seed::colliding() } else { Seed::default() };
            let mut trie = Trie { seed, ..Trie::default() };
            let mut model = std::collections::BTreeSet::new();
            for (mut text, rest, value, add) in steps {
                if rest { text.push_str(".>"); }
                if add {
                    prop_assert_eq!(trie.insert(&pattern(&text), value), model.insert((text, value)));
                } else {
                    prop_assert_eq!(trie.remove(&pattern(&text), value), model.remove(&(text, value)));
                }
                prop_assert_eq!(trie.len(), model.len());
            }
            for subject in &subjects {
                let mut expected: Vec<u32> =
                    model.iter().filter(|(text, _)| naive_match(text, subject)).map(|(_, value)| *value).collect();
                expected.sort_unstable();
                prop_assert_eq!(found(&trie, subject), expected);
            }
            for (text, value) in &model { trie.remove(&pattern(text), *value); }
            prop_assert_eq!((trie.nodes.len(), trie.children.len), (1, 0));
        }
    }
}
