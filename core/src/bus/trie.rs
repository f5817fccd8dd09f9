//! Patterns by their tokens: finding what matches a subject costs its tokens, not the number of patterns.
//!
//! A node stands for the tokens that some patterns begin with. All nodes lie in one open table under the
//! hash of these tokens, so where a step would lead is known before anything is read, and a node names
//! neither its parent nor its children: it only filters which tokens may follow. A step that leads nowhere
//! mostly ends there; any other reads one node, half a cache line.
//!
//! Hashes alone lead the way, so paths whose hashes collide share a node. What they lead to is compared
//! with the subject, every byte, before it counts. Nodes that no pattern passes any more are taken away.
#![forbid(unsafe_code)]

use super::hash::Seed;
use crate::{
    name::{Pattern, TOKENS_MAX},
    os::cpu::prefetch,
};

/// A set of (pattern, value) pairs that is asked which values match a subject.
#[derive(Debug)]
pub struct Trie<T> {
    seed: Seed,
    root: Node,
    nodes: Table,
    leaves: Vec<Leaf<T>>,
    free: Vec<u32>,
    len: usize,
    walk: Walk,
}

/// The patterns that begin with certain tokens.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Node {
    /// The hash of these tokens.
    key: u64,
    /// Bit n: a token may follow whose hash ends in n; [`STAR`]: a `*` may. A bit may outlive its reason,
    /// which costs a look in vain.
    next: u64,
    /// Patterns that pass or end here; 0 is a hole in the table.
    uses: u32,
    /// By [`End`]: the first leaf of the patterns that end so, or [`NONE`].
    ends: [u32; 3],
}

const _: () = assert!(size_of::<Node>() == 32);

/// What completes a pattern after its last node.
#[derive(Clone, Copy, Debug)]
enum End {
    Nothing,
    /// `*`, which at the end has no node.
    Star,
    /// `>`.
    Rest,
}

/// One pattern and its values. Several share a list only if their hashes collide.
#[derive(Debug)]
#[repr(align(64))]
struct Leaf<T> {
    values: Values<T>,
    next: u32,
    /// The pattern's tokens up to its node, so without a final `*` or `>`.
    text: Text,
}

const _: () = assert!(size_of::<Leaf<u32>>() == 64);

const NONE: u32 = u32::MAX;
const STAR: u64 = 1 << 63;

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self {
            seed: Seed::default(),
            root: Node::default(),
            nodes: Table::default(),
            leaves: Vec::new(),
            free: Vec::new(),
            len: 0,
            walk: Walk::default(),
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
        let path = Path::of(pattern, self.seed);
        let leaf = match self.leaf(&path) {
            Some(leaf) => leaf,
            None => self.grow(&path),
        };
        let added = self.leaves[leaf as usize].values.insert(value);
        self.len += usize::from(added);
        added
    }

    /// Removes a pair; `false` when it was not there.
    pub fn remove(&mut self, pattern: &Pattern, value: T) -> bool {
        let path = Path::of(pattern, self.seed);
        let Some(leaf) = self.leaf(&path) else { return false };
        let values = &mut self.leaves[leaf as usize].values;
        let removed = values.remove(value);
        if removed {
            let was_last = matches!(values, Values::None);
            self.len -= 1;
            if self.len == 0 {
                // Nothing is left: give the memory back.
                *self = Self { seed: self.seed, ..Self::default() };
            } else if was_last {
                self.prune(&path, leaf);
            }
        }
        removed
    }

    /// Appends the values of all patterns that match `subject` to `out`, in no particular order.
    ///
    /// A value that stands under several matching patterns comes several times. Allocates only when
    /// `out` has to grow. Changes nothing that shows: it writes where the last search wrote.
    pub fn matches(&mut self, subject: &str, out: &mut Vec<T>) {
        let (seed, subject) = (self.seed, subject.as_bytes());
        let walk = &mut self.walk;
        walk.tokens.split(subject, seed);
        walk.visit(&self.root, Way { key: seed.root(), depth: 0, stars: 0 }, seed, &self.nodes, &self.leaves);
        let mut first = 0;
        while first < walk.ahead.len() {
            let way = if walk.ahead.len() - first < WIDE {
                first += 1;
                walk.ahead[first - 1]
            } else {
                walk.ahead.pop().expect("there are WIDE of them")
            };
            if let Some(node) = self.nodes.find(way.key) {
                walk.visit(node, way, seed, &self.nodes, &self.leaves);
            }
            if walk.found.len() >= WIDE {
                walk.take(subject, &self.leaves, out);
            }
        }
        walk.ahead.clear();
        walk.take(subject, &self.leaves, out);
    }

    /// The leaf of this very pattern.
    fn leaf(&self, path: &Path) -> Option<u32> {
        let node = match path.steps.last() {
            None => &self.root,
            Some(step) => self.nodes.find(step.key)?,
        };
        self.list(node.ends[path.end as usize]).find(|&leaf| self.leaves[leaf as usize].text.is(path.text))
    }

    fn list(&self, first: u32) -> impl Iterator<Item = u32> {
        let one = |leaf: u32| (leaf != NONE).then_some(leaf);
        std::iter::successors(one(first), move |&leaf| one(self.leaves[leaf as usize].next))
    }

    /// A new leaf and the nodes that lead to it.
    fn grow(&mut self, path: &Path) -> u32 {
        let leaf = self.free.pop().unwrap_or_else(|| {
            let index = self.leaves.len();
            self.leaves.push(Leaf { values: Values::None, next: NONE, text: Text::default() });
            u32::try_from(index).expect("four billion patterns do not fit in memory")
        });
        let mut node = &mut self.root;
        for step in &path.steps {
            node.next |= step.bit;
            node = self.nodes.find_or_insert(step.key);
            node.uses += 1;
        }
        let first = std::mem::replace(&mut node.ends[path.end as usize], leaf);
        self.leaves[leaf as usize] = Leaf { values: Values::None, next: first, text: Text::new(path.text) };
        leaf
    }

    /// Takes `leaf` away and the nodes that only it needed.
    fn prune(&mut self, path: &Path, leaf: u32) {
        let gone = std::mem::replace(
            &mut self.leaves[leaf as usize],
            Leaf { values: Values::None, next: NONE, text: Text::default() },
        );
        self.free.push(leaf);
        let first = &mut self.node_of(&path.steps).ends[path.end as usize];
        if *first == leaf {
            *first = gone.next;
        } else {
            let mut before = *first;
            while self.leaves[before as usize].next != leaf {
                before = self.leaves[before as usize].next;
            }
            self.leaves[before as usize].next = gone.next;
        }
        for (depth, step) in path.steps.iter().enumerate().rev() {
            let node = self.node_of(&path.steps[..=depth]);
            node.uses -= 1;
            if node.uses == 0 {
                self.nodes.remove(step.key);
                if step.bit == STAR {
                    self.node_of(&path.steps[..depth]).next &= !STAR;
                }
            }
        }
    }
}

impl<T> Trie<T> {
    /// The node after these steps, all of which were grown.
    fn node_of(&mut self, steps: &[Step]) -> &mut Node {
        match steps.last() {
            None => &mut self.root,
            Some(step) => {
                self.nodes.get_mut(step.key).expect("a pattern's nodes live as long as the pattern")
            }
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self { key: 0, next: 0, uses: 0, ends: [NONE; 3] }
    }
}

/// A pattern as a way through the nodes.
struct Path<'a> {
    steps: Vec<Step>,
    end: End,
    text: &'a str,
}

struct Step {
    key: u64,
    /// What the node before must have in its filter.
    bit: u64,
}

impl<'a> Path<'a> {
    fn of(pattern: &'a Pattern, seed: Seed) -> Self {
        let text = pattern.as_str();
        let (before, last) = text.rsplit_once('.').unwrap_or(("", text));
        let (text, end) = match last {
            ">" => (before, End::Rest),
            "*" => (before, End::Star),
            _ => (text, End::Nothing),
        };
        let mut key = seed.root();
        let tokens = text.split('.').filter(|token| !token.is_empty());
        let steps = tokens.map(|token| {
            let hash = seed.hash(token.as_bytes());
            key = seed.join(key, hash);
            Step { key, bit: if token == "*" { STAR } else { literal_bit(hash) } }
        });
        Self { steps: steps.collect(), end, text }
    }
}

#[inline]
fn literal_bit(token: u64) -> u64 {
    1 << (token % 64).min(62)
}

/// A subject's tokens, as many as a pattern can have.
#[derive(Debug, Default)]
struct Tokens {
    /// One more than these if the subject has more.
    count: usize,
    /// Where each ends, and its hash.
    ends: [u32; TOKENS_MAX],
    hashes: [u64; TOKENS_MAX],
}

impl Tokens {
    #[inline]
    fn split(&mut self, subject: &[u8], seed: Seed) {
        self.count = 0;
        let mut start = 0;
        for (block, base) in subject.chunks(64).zip((0..).step_by(64)) {
            let mut dots = dots(block);
            while dots != 0 {
                let end = base + dots.trailing_zeros() as usize;
                self.push(&subject[start..end], end, seed);
                start = end + 1;
                dots &= dots - 1;
            }
        }
        self.push(&subject[start..], subject.len(), seed);
    }

    #[inline]
    fn push(&mut self, token: &[u8], end: usize, seed: Seed) {
        if self.count < TOKENS_MAX {
            self.ends[self.count] = end as u32;
            self.hashes[self.count] = seed.hash(token);
            self.count += 1;
        } else {
            self.count = TOKENS_MAX + 1;
        }
    }

    /// Where token `index` ends, and how many bytes the tokens before it take with their dots.
    #[inline]
    fn span(&self, index: usize) -> (usize, usize) {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize + 1 };
        (start, self.ends[index] as usize)
    }

    /// Whether `text` is the first `count` tokens of `subject`, with a `*` for each `stars` has a bit for.
    #[inline]
    fn are(&self, subject: &[u8], text: &[u8], count: u32, mut stars: u32) -> bool {
        let (mut at, mut text) = (0, text);
        while stars != 0 {
            let (start, end) = self.span(stars.trailing_zeros() as usize);
            let literal = &subject[at..start];
            match text.split_at_checked(literal.len()) {
                Some((front, [b'*', rest @ ..])) if front == literal => text = rest,
                _ => return false,
            }
            at = end;
            stars &= stars - 1;
        }
        let end = if count == 0 { 0 } else { self.ends[count as usize - 1] as usize };
        *text == subject[at..end]
    }
}

/// Bit n: byte n of at most 64 is a dot.
#[inline]
fn dots(block: &[u8]) -> u64 {
    let (words, rest) = block.as_chunks();
    let mut bits = 0;
    for (word, base) in words.iter().zip((0..).step_by(8)) {
        bits |= dots_of_word(*word) << base;
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        match block.last_chunk::<8>() {
            Some(last) => return bits | dots_of_word(*last) << (block.len() - 8),
            None => word[..rest.len()].copy_from_slice(rest),
        }
        bits |= dots_of_word(word);
    }
    bits
}

/// Eight bytes at once: a byte without any bit that a dot has not is a dot.
#[inline]
fn dots_of_word(word: [u8; 8]) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);
    let other = u64::from_le_bytes(word) ^ u64::from_ne_bytes([b'.'; 8]);
    let dots = !(((other & LOW) + LOW) | other | LOW);
    // The top bits of the bytes, gathered into the top byte.
    (dots >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// One search: where it may go on and what it came to, both on their way into the processor's caches.
///
/// What lies ahead is visited first come, first served: while one is waited for the others come. Where the
/// way gets [`WIDE`] the last go first, so that it stays that wide whatever the patterns are.
#[derive(Debug, Default)]
struct Walk {
    tokens: Tokens,
    ahead: Vec<Way>,
    found: Vec<Found>,
}

/// The first `depth` tokens of the subject, with a `*` for each that `stars` has a bit for.
#[derive(Clone, Copy, Debug)]
struct Way {
    key: u64,
    depth: u32,
    stars: u32,
}

/// The patterns of a list may begin with these tokens.
#[derive(Clone, Copy, Debug)]
struct Found {
    leaf: u32,
    depth: u32,
    stars: u32,
}

const WIDE: usize = 64;

impl Walk {
    #[inline]
    fn visit<T>(&mut self, node: &Node, way: Way, seed: Seed, nodes: &Table, leaves: &[Leaf<T>]) {
        let Way { key, depth, stars } = way;
        let [here, star, rest] = node.ends;
        let mut find = |leaf| {
            if leaf != NONE {
                prefetch(&leaves[leaf as usize]);
                self.found.push(Found { leaf, depth, stars });
            }
        };
        if depth as usize == self.tokens.count {
            return find(here);
        }
        find(rest);
        let Some(&token) = self.tokens.hashes.get(depth as usize) else { return };
        if depth as usize + 1 == self.tokens.count {
            find(star);
        }
        let mut go = |key, stars| {
            nodes.prefetch(key);
            self.ahead.push(Way { key, depth: depth + 1, stars });
        };
        if node.next & STAR != 0 && depth as usize + 1 < self.tokens.count {
            go(seed.join(key, seed.hash(b"*")), stars | 1 << depth);
        }
        if node.next & literal_bit(token) != 0 {
            go(seed.join(key, token), stars);
        }
    }

    /// Appends the values of what was found, once it is compared.
    #[inline]
    fn take<T: Copy + Ord>(&mut self, subject: &[u8], leaves: &[Leaf<T>], out: &mut Vec<T>) {
        for Found { leaf, depth, stars } in self.found.drain(..) {
            let mut next = leaf;
            while next != NONE {
                let leaf = &leaves[next as usize];
                if self.tokens.are(subject, leaf.text.as_bytes(), depth, stars) {
                    out.extend_from_slice(leaf.values.as_slice());
                }
                next = leaf.next;
            }
        }
    }
}

/// Nearly all are short enough to lie in their leaf.
#[derive(Debug)]
enum Text {
    Short(u8, [u8; 30]),
    Long(Box<[u8]>),
}

impl Default for Text {
    fn default() -> Self {
        Self::Short(0, [0; 30])
    }
}

impl Text {
    fn new(text: &str) -> Self {
        let mut short = [0; 30];
        match short.get_mut(..text.len()) {
            Some(front) => {
                front.copy_from_slice(text.as_bytes());
                Self::Short(text.len() as u8, short)
            }
            None => Self::Long(text.as_bytes().into()),
        }
    }

    fn is(&self, text: &str) -> bool {
        self.as_bytes() == text.as_bytes()
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
    #[inline]
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

/// Nodes by their keys: open addressing, linear probing, at most half full.
///
/// A node lies where its key says or behind it without a hole between, so removing one moves later ones up.
#[derive(Debug, Default)]
struct Table {
    /// None or a power of two.
    nodes: Vec<Node>,
    len: usize,
}

impl Table {
    #[inline]
    fn prefetch(&self, key: u64) {
        if let Some(node) = self.nodes.get(key as usize & self.nodes.len().wrapping_sub(1)) {
            prefetch(node);
        }
    }

    #[inline]
    fn find(&self, key: u64) -> Option<&Node> {
        let mask = self.nodes.len().checked_sub(1)?;
        let mut at = key as usize & mask;
        loop {
            let node = &self.nodes[at];
            if node.key == key && node.uses > 0 {
                return Some(node);
            }
            if node.uses == 0 {
                return None;
            }
            at = (at + 1) & mask;
        }
    }

    fn get_mut(&mut self, key: u64) -> Option<&mut Node> {
        let at = self.at(key)?;
        Some(&mut self.nodes[at]).filter(|node| node.uses > 0)
    }

    /// Where the node of this key lies or would lie.
    fn at(&self, key: u64) -> Option<usize> {
        let mask = self.nodes.len().checked_sub(1)?;
        let mut at = key as usize & mask;
        while self.nodes[at].uses > 0 && self.nodes[at].key != key {
            at = (at + 1) & mask;
        }
        Some(at)
    }

    /// The node of this key; of a new one the caller raises the uses.
    fn find_or_insert(&mut self, key: u64) -> &mut Node {
        if (self.len + 1) * 2 > self.nodes.len() {
            let doubled = (self.nodes.len() * 2).max(16);
            let old = std::mem::replace(&mut self.nodes, vec![Node::default(); doubled]);
            for node in old.into_iter().filter(|node| node.uses > 0) {
                let at = self.at(node.key).expect("the table has room");
                self.nodes[at] = node;
            }
        }
        let at = self.at(key).expect("the table has room");
        let node = &mut self.nodes[at];
        if node.uses == 0 {
            node.key = key;
            self.len += 1;
        }
        node
    }

    fn remove(&mut self, key: u64) {
        let mask = self.nodes.len() - 1;
        let mut hole = key as usize & mask;
        while self.nodes[hole].key != key {
            hole = (hole + 1) & mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let node = self.nodes[at];
            if node.uses == 0 {
                break;
            }
            // A node may move up to the hole unless that would put it before where its key says.
            if at.wrapping_sub(node.key as usize) & mask >= at.wrapping_sub(hole) & mask {
                self.nodes[hole] = node;
                hole = at;
            }
        }
        self.nodes[hole] = Node::default();
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

    fn found(trie: &mut Trie<u32>, subject: &str) -> Vec<u32> {
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
        assert_eq!(found(&mut trie, "a.b"), [0, 1, 2, 3, 4]);
        assert_eq!(found(&mut trie, "a"), [3, 5]);
        assert_eq!(found(&mut trie, "a.b.c"), [3, 4, 6, 7]);
        assert_eq!(found(&mut trie, "x.y"), [3]);
    }

    #[test]
    fn one_pattern_holds_many_values_once_each() {
        let mut trie = Trie::new();
        let long = format!("{}.x", "t".repeat(200));
        for value in [5, 3, 9, 3] {
            let held = found(&mut trie, &long).contains(&value);
            assert_eq!(trie.insert(&pattern(&long), value), !held);
        }
        assert_eq!((found(&mut trie, &long), trie.len()), (vec![3, 5, 9], 3));
        assert!(trie.remove(&pattern(&long), 5) && !trie.remove(&pattern(&long), 5));
        assert_eq!(found(&mut trie, &long), [3, 9]);
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
        assert_eq!((trie.leaves.len() - trie.free.len(), trie.nodes.len), (1, 3), "the path a, 0, c");
        assert!(trie.remove(&pattern(&texts[0]), 0));
        assert_eq!((trie.leaves.len(), trie.nodes.len, trie.is_empty()), (0, 0, true));
    }

    #[test]
    fn a_way_as_wide_as_patterns_make_it_takes_little_room() {
        let mut trie = Trie::new();
        for value in 0..1 << 12 {
            let tokens = (0..12).map(|bit| if value & 1 << bit == 0 { "a" } else { "*" });
            let text = tokens.chain(["z"]).collect::<Vec<_>>().join(".");
            trie.insert(&pattern(&text), value);
        }
        let subject = "a.".repeat(12);
        assert_eq!(found(&mut trie, &format!("{subject}z")), (0..1 << 12).collect::<Vec<_>>());
        assert_eq!(found(&mut trie, &format!("{subject}y")), Vec::<u32>::new());
        let room = trie.walk.ahead.capacity().max(trie.walk.found.capacity());
        assert!(room <= (TOKENS_MAX + 1) * WIDE * 2, "{room}");
    }

    #[test]
    fn the_longest_patterns_take_128_bytes_a_token() {
        let mut trie = Trie::new();
        for value in 0..1 << 11 {
            // Nothing shared but the root.
            let text = format!("{value:x}{}", ".a".repeat(TOKENS_MAX - 1));
            trie.insert(&pattern(&text), value);
        }
        let nodes = TOKENS_MAX << 11;
        assert_eq!(trie.nodes.len, nodes);
        assert!(trie.nodes.nodes.len() * size_of::<Node>() <= nodes * 128);
    }

    #[test]
    fn a_subject_of_more_tokens_than_patterns_have_matches_rests() {
        let mut trie = Trie::new();
        let most = ["a"; TOKENS_MAX].join(".");
        for (value, text) in
            [&most, ">", "a.>", &most.replace('a', "*"), &format!("{}.>", &most[2..])].into_iter().enumerate()
        {
            trie.insert(&pattern(text), value as u32);
        }
        assert_eq!(found(&mut trie, &most), [0, 1, 2, 3, 4]);
        for more in [1, 2, 100] {
            assert_eq!(found(&mut trie, &format!("{most}{}", ".a".repeat(more))), [1, 2, 4]);
        }
    }

    fn texts(wild: &'static str) -> impl Strategy<Value = String> {
        proptest::collection::vec(wild, 1..7).prop_map(|tokens| tokens.join("."))
    }

    proptest! {
        #[test]
        fn dots_are_found_whatever_lies_between(text in proptest::collection::vec(
            prop_oneof![Just(b'.'), Just(b'/'), Just(b'-'), Just(0xae), any::<u8>()], 0..65,
        )) {
            let expected = text.iter().rev().fold(0, |bits, &byte| bits << 1 | u64::from(byte == b'.'));
            prop_assert_eq!(dots(&text), expected);
        }

        #[test]
        fn finds_what_the_naive_matcher_finds(
            steps in proptest::collection::vec((texts("[abc*]|long{0,12}"), any::<bool>(), 0u32..4, any::<bool>()), 1..60),
            subjects in proptest::collection::vec(texts("[abcd]|long{0,12}"), 1..20),
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
                prop_assert_eq!(found(&mut trie, subject), expected);
            }
            for (text, value) in &model { trie.remove(&pattern(text), *value); }
            prop_assert_eq!((trie.leaves.len(), trie.nodes.len, trie.nodes.nodes.len()), (0, 0, 0));
        }
    }
}
