//! The machine: opcodes of protocols 0 to 5 to a tree of values.
//!
//! # Source
//! `Lib/pickletools.py` of CPython 3.13, which describes each opcode.

use std::collections::HashMap;

use crate::error::{Outcome, Problem, within};
use crate::limits;
use crate::pickle::input::Input;
use crate::pickle::torch::{self, Built};
use crate::pickle::{Arena, Id, Node, Object, text};

/// A finished pickle.
#[derive(Debug)]
pub(crate) struct Pickle {
    pub(crate) arena: Arena,
    pub(crate) top: Id,
}

impl Pickle {
    /// The value under a key of a mapping, or an attribute of an object.
    pub(crate) fn child(&self, id: Id, key: &str) -> Option<Id> {
        if let Some(pairs) = self.arena.mapping(id) {
            return self.arena.get(pairs, key);
        }
        let Node::Object(object) = self.arena.node(id) else { return None };
        self.arena.get(self.arena.mapping(object.state?)?, key)
    }
}

/// Runs one pickle to its end; the input then stands behind it.
pub(crate) fn run(input: &mut Input<'_>) -> Outcome<Pickle> {
    let mut machine = Machine::default();
    let mut opcodes = 0;
    loop {
        let at = input.position();
        let opcode = input.byte()?;
        opcodes += 1;
        within("the number of opcodes of a pickle", opcodes, limits::PICKLE_OPCODES)?;
        if opcode == b'.' {
            let top = machine.pop()?;
            return Ok(Pickle { arena: machine.arena, top });
        }
        machine.step(opcode, input, at)?;
    }
}

#[derive(Default)]
struct Machine {
    arena: Arena,
    stack: Vec<Id>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    values: u64,
    string_bytes: u64,
}

impl Machine {
    fn step(&mut self, opcode: u8, input: &mut Input<'_>, at: u64) -> Outcome<()> {
        match opcode {
            0x80 => {
                let protocol = input.byte()?;
                if protocol > 5 {
                    return Err(Problem::Unsupported(format!("pickle protocol {protocol}")));
                }
            }
            0x95 => {
                let len = u64::from_le_bytes(input.array()?);
                if len > input.left() {
                    return Err(Problem::damaged(format!("the pickle is cut short: a frame of {len} bytes at {at}")));
                }
            }
            // Constants and numbers.
            b'N' => self.push(Node::None)?,
            0x88 => self.push(Node::Bool(true))?,
            0x89 => self.push(Node::Bool(false))?,
            b'I' => self.push(text::integer(&input.line()?, false)?)?,
            b'L' => self.push(text::integer(&input.line()?, true)?)?,
            b'F' => self.push(text::float(&input.line()?)?)?,
            b'J' => self.push(Node::Int(i32::from_le_bytes(input.array()?).into()))?,
            b'K' => self.push(Node::Int(input.byte()?.into()))?,
            b'M' => self.push(Node::Int(u16::from_le_bytes(input.array()?).into()))?,
            b'G' => self.push(Node::Float(f64::from_be_bytes(input.array()?)))?,
            0x8a => {
                let len = input.byte()?;
                self.push_long(input, len.into())?;
            }
            0x8b => {
                let len = u32::from_le_bytes(input.array()?);
                self.push_long(input, len.into())?;
            }
            // Text and bytes.
            b'S' => {
                let bytes = text::quoted(&input.line()?)?;
                self.count_string(bytes.len() as u64)?;
                self.push(text::python2_string(bytes))?;
            }
            b'V' => {
                let string = text::raw_unicode(&input.line()?)?;
                self.count_string(string.len() as u64)?;
                self.push(Node::Text(string.into()))?;
            }
            b'T' | b'U' | b'X' | b'B' | b'C' | 0x8c | 0x8d | 0x8e | 0x96 => self.counted_string(opcode, input)?,
            // Stack.
            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.discard()?,
            b'1' => drop(self.pop_mark()?),
            b'2' => self.stack.push(self.top()?),
            // Memo.
            b'p' | b'q' | b'r' | 0x94 => {
                let key = match opcode {
                    b'p' => self.memo_line(input)?,
                    b'q' => input.byte()?.into(),
                    b'r' => u32::from_le_bytes(input.array()?).into(),
                    _ => self.memo.len() as u64,
                };
                self.memo.insert(key, self.top()?);
            }
            b'g' | b'h' | b'j' => {
                let key = match opcode {
                    b'g' => self.memo_line(input)?,
                    b'h' => input.byte()?.into(),
                    _ => u32::from_le_bytes(input.array()?).into(),
                };
                let id = self.memo.get(&key).copied();
                let missing = || Problem::damaged(format!("the pickle uses value {key}, which it never stored"));
                self.stack.push(id.ok_or_else(missing)?);
            }
            // Containers.
            b')' => self.push(Node::Tuple(Box::default()))?,
            b']' => self.push(Node::List(Vec::new()))?,
            b'}' => self.push(Node::Dict(Vec::new()))?,
            0x8f => self.push(Node::Set(Vec::new()))?,
            0x85..=0x87 => {
                let mut elements = Vec::with_capacity(3);
                for _ in 0..opcode - 0x84 {
                    elements.push(self.pop()?);
                }
                elements.reverse();
                self.push(Node::Tuple(elements.into()))?;
            }
            b't' => {
                let elements = self.pop_mark()?;
                self.push(Node::Tuple(elements.into()))?;
            }
            b'l' => {
                let elements = self.pop_mark()?;
                self.push(Node::List(elements))?;
            }
            0x91 => {
                let elements = self.pop_mark()?;
                self.push(Node::Set(elements))?;
            }
            b'd' => {
                let pairs = pairs(self.pop_mark()?)?;
                self.push(Node::Dict(pairs))?;
            }
            b'a' => {
                let value = self.pop()?;
                self.append(vec![value])?;
            }
            b'e' | 0x90 => {
                let values = self.pop_mark()?;
                self.append(values)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(vec![(key, value)])?;
            }
            b'u' => {
                let pairs = pairs(self.pop_mark()?)?;
                self.set_items(pairs)?;
            }
            // Classes, calls and objects: recorded, never made.
            b'c' => {
                let module = utf8(input.line()?);
                let name = utf8(input.line()?);
                self.push_global(&module, &name)?;
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                let (Some(module), Some(name)) = (self.arena.text(module), self.arena.text(name)) else {
                    return Err(Problem::damaged(format!("a class at byte {at} whose name is no text")));
                };
                let (module, name) = (module.to_owned(), name.to_owned());
                self.push_global(&module, &name)?;
            }
            b'R' | 0x81 => {
                let args = self.pop()?;
                let function = self.pop()?;
                let args = self.arguments(args, at)?;
                self.call(function, args)?;
            }
            0x92 => {
                let _keywords = self.pop()?;
                let args = self.pop()?;
                let class = self.pop()?;
                let args = self.arguments(args, at)?;
                self.call(class, args)?;
            }
            b'i' => {
                let module = utf8(input.line()?);
                let name = utf8(input.line()?);
                let args = self.pop_mark()?;
                self.push_global(&module, &name)?;
                let class = self.pop()?;
                self.call(class, args)?;
            }
            b'o' => {
                let mut args = self.pop_mark()?;
                if args.is_empty() {
                    return Err(underflow());
                }
                let class = args.remove(0);
                self.call(class, args)?;
            }
            b'b' => {
                let state = self.pop()?;
                let target = self.top()?;
                // Attributes of anything else (a tensor, an enum) say nothing about weights.
                if let Node::Object(object) = self.arena.node_mut(target) {
                    object.state = Some(state);
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let built = torch::persistent(&self.arena, id)?;
                self.push_built(built)?;
            }
            b'P' => return Err(Problem::Unsupported("persistent ids that are text".into())),
            0x82..=0x84 => return Err(Problem::Unsupported("the extension registry of pickle".into())),
            0x97 | 0x98 => return Err(Problem::Unsupported("buffers outside the pickle".into())),
            other => return Err(Problem::damaged(format!("byte {at} of the pickle, 0x{other:02x}, is no opcode"))),
        }
        Ok(())
    }

    fn count_values(&mut self, count: u64) -> Outcome<()> {
        self.values += count;
        within("the number of values of a pickle", self.values, limits::PICKLE_VALUES)
    }

    fn count_string(&mut self, len: u64) -> Outcome<()> {
        self.string_bytes = self.string_bytes.saturating_add(len);
        within("the text of a pickle in bytes", self.string_bytes, limits::PICKLE_STRING_BYTES)
    }

    fn push(&mut self, node: Node) -> Outcome<()> {
        self.count_values(1)?;
        let id = self.arena.push(node);
        self.stack.push(id);
        Ok(())
    }

    fn push_built(&mut self, built: Built) -> Outcome<()> {
        match built {
            Built::Node(node) => {
                self.count_values(3)?;
                self.push(node)
            }
            Built::Same(id) => {
                self.stack.push(id);
                Ok(())
            }
        }
    }

    fn push_long(&mut self, input: &mut Input<'_>, len: u64) -> Outcome<()> {
        self.count_string(len)?;
        let bytes = input.bytes(len)?;
        self.push(text::long(bytes))
    }

    fn counted_string(&mut self, opcode: u8, input: &mut Input<'_>) -> Outcome<()> {
        let len = match opcode {
            b'U' | b'C' | 0x8c => input.byte()?.into(),
            b'T' | b'X' | b'B' => u32::from_le_bytes(input.array()?).into(),
            _ => u64::from_le_bytes(input.array()?),
        };
        self.count_string(len)?;
        let bytes = input.bytes(len)?;
        self.push(match opcode {
            b'T' | b'U' => text::python2_string(bytes),
            b'X' | 0x8c | 0x8d => Node::Text(utf8(bytes).into()),
            _ => Node::Bytes(bytes.into()),
        })
    }

    fn memo_line(&mut self, input: &mut Input<'_>) -> Outcome<u64> {
        let line = input.line()?;
        let number = std::str::from_utf8(&line).ok().and_then(|text| text.parse().ok());
        number.ok_or_else(|| Problem::damaged("a memo index of the pickle is no number"))
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Outcome<Id> {
        match self.stack.last() {
            Some(id) if self.stack.len() > self.floor() => Ok(*id),
            _ => Err(underflow()),
        }
    }

    fn pop(&mut self) -> Outcome<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    /// `POP` takes a mark where no value stands above it.
    fn discard(&mut self) -> Outcome<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn pop_mark(&mut self) -> Outcome<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(underflow)?;
        Ok(self.stack.split_off(mark))
    }

    fn push_global(&mut self, module: &str, name: &str) -> Outcome<()> {
        self.count_string((module.len() + name.len()) as u64)?;
        // Python 2's names of two modules.
        let module = match module {
            "__builtin__" => "builtins",
            "copy_reg" => "copyreg",
            other => other,
        };
        self.push(Node::Global(format!("{module}.{name}").into()))
    }

    /// The elements of a tuple of arguments.
    fn arguments(&mut self, args: Id, at: u64) -> Outcome<Vec<Id>> {
        let Node::Tuple(elements) = self.arena.node(args) else {
            return Err(Problem::damaged(format!("a call at byte {at} whose arguments are no tuple")));
        };
        let elements = elements.to_vec();
        self.count_values(elements.len() as u64)?;
        Ok(elements)
    }

    /// Records that `function` would be called with `args`.
    fn call(&mut self, function: Id, args: Vec<Id>) -> Outcome<()> {
        let name = self.arena.global(function).unwrap_or("");
        if let Some(built) = torch::call(&self.arena, name, &args)? {
            return self.push_built(built);
        }
        let object = match (name, &args[..]) {
            // How protocols 0 and 1 spell an instance: (class, base class, value of the base class).
            ("copyreg._reconstructor", [class, _, base]) => self.object_of(*class, *base)?,
            ("copyreg.__newobj__", [class, rest @ ..]) => self.object(*class, rest.to_vec()),
            // `OrderedDict([[key, value], ...])` is what Python 2 writes; a `Counter` takes a dict.
            ("collections.OrderedDict" | "collections.Counter", [content]) => self.object_of(function, *content)?,
            // How protocol 2 spells bytes.
            ("_codecs.encode", [string, ..]) => match self.latin1(*string) {
                Some(bytes) => {
                    self.count_string(bytes.len() as u64)?;
                    Node::Bytes(bytes.into())
                }
                None => self.object(function, args),
            },
            ("builtins.set" | "builtins.frozenset", [elements]) => match self.arena.sequence(*elements) {
                Some(elements) => {
                    let elements = elements.to_vec();
                    self.count_values(elements.len() as u64)?;
                    Node::Set(elements)
                }
                None => self.object(function, args),
            },
            _ => self.object(function, args),
        };
        self.count_values(3)?;
        self.push(object)
    }

    fn object(&self, class: Id, args: Vec<Id>) -> Node {
        Node::Object(Box::new(Object { class, args, state: None, pairs: Vec::new(), elements: Vec::new() }))
    }

    /// An object with the content of another container.
    fn object_of(&mut self, class: Id, content: Id) -> Outcome<Node> {
        let mut object = Object { class, args: Vec::new(), state: None, pairs: Vec::new(), elements: Vec::new() };
        let pair =
            |entry: &Id| self.arena.sequence(*entry).filter(|pair| pair.len() == 2).map(|pair| (pair[0], pair[1]));
        match self.arena.node(content) {
            Node::None => {}
            Node::Dict(pairs) => object.pairs = pairs.clone(),
            Node::List(elements) => match elements.iter().map(pair).collect() {
                Some(pairs) => object.pairs = pairs,
                None => object.elements = elements.clone(),
            },
            _ => object.args = vec![content],
        }
        self.count_values((object.pairs.len() + object.elements.len()) as u64)?;
        Ok(Node::Object(Box::new(object)))
    }

    fn latin1(&self, id: Id) -> Option<Vec<u8>> {
        self.arena.text(id)?.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect()
    }

    fn append(&mut self, values: Vec<Id>) -> Outcome<()> {
        let target = self.top()?;
        match self.arena.node_mut(target) {
            Node::List(elements) | Node::Set(elements) => elements.extend(values),
            Node::Object(object) => object.elements.extend(values),
            _ => return Err(Problem::damaged("the pickle appends to something that is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, new: Vec<(Id, Id)>) -> Outcome<()> {
        let target = self.top()?;
        match self.arena.node_mut(target) {
            Node::Dict(pairs) => pairs.extend(new),
            Node::Object(object) => object.pairs.extend(new),
            _ => return Err(Problem::damaged("the pickle sets items of something that is no mapping")),
        }
        Ok(())
    }
}

fn underflow() -> Problem {
    Problem::damaged("the pickle takes a value that is not there")
}

/// Text of a pickle. Lone surrogates are legal there; they become the replacement character.
fn utf8(bytes: Vec<u8>) -> String {
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

fn pairs(values: Vec<Id>) -> Outcome<Vec<(Id, Id)>> {
    let (pairs, rest) = values.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Problem::damaged("a mapping of the pickle has a key without a value"));
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}
