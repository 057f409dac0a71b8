//! The stack machine that a pickle is a program for. Opcodes have the names of Python's `pickletools`.

use std::collections::BTreeMap;

use super::{Global, Handle, Object, PickleError};

/// Runs a whole pickle: all objects that it made, and the one that was pickled.
pub fn run(bytes: &[u8]) -> Result<(Vec<Object<'_>>, Handle), PickleError> {
    let mut machine =
        Machine { bytes, next: 0, opcode_at: 0, objects: vec![], stack: vec![], marks: vec![], memo: BTreeMap::new() };
    let root = machine.run()?;
    if machine.next != bytes.len() {
        return Err(PickleError::Damaged { offset: machine.next, message: "more bytes follow its end" });
    }
    Ok((machine.objects, root))
}

struct Machine<'a> {
    bytes: &'a [u8],
    next: usize,
    opcode_at: usize,
    objects: Vec<Object<'a>>,
    stack: Vec<Handle>,
    /// Heights of the stack at its open marks.
    marks: Vec<usize>,
    memo: BTreeMap<usize, Handle>,
}

impl<'a> Machine<'a> {
    /// Runs to the end and returns what is then on top of the stack.
    fn run(&mut self) -> Result<Handle, PickleError> {
        loop {
            self.opcode_at = self.next;
            let [opcode] = self.array()?;
            match opcode {
                // PROTO and FRAME only help to read faster.
                0x80 => drop(self.array::<1>()?),
                0x95 => drop(self.array::<8>()?),
                // NONE, NEWTRUE, NEWFALSE
                b'N' | 0x88 | 0x89 => self.push(Object::Singleton),
                // BININT, BININT1, BININT2
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.push(Object::Integer(value.into()));
                }
                b'K' => {
                    let [value] = self.array()?;
                    self.push(Object::Integer(value.into()));
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.push(Object::Integer(value.into()));
                }
                // BINUNICODE, SHORT_BINUNICODE
                b'X' | 0x8c => {
                    let length = self.length(opcode == b'X')?;
                    let text = self.text(length)?;
                    self.push(Object::Text(text));
                }
                // BINBYTES, SHORT_BINBYTES
                b'B' | b'C' => {
                    let length = self.length(opcode == b'B')?;
                    let bytes = self.slice(length)?;
                    self.push(Object::Bytes(bytes));
                }
                // MARK
                b'(' => self.marks.push(self.stack.len()),
                // TUPLE, TUPLE1, TUPLE3, EMPTY_TUPLE
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push(Object::Tuple(items));
                }
                0x85 => {
                    let item = self.pop()?;
                    self.push(Object::Tuple(vec![item]));
                }
                0x87 => {
                    let (third, second, first) = (self.pop()?, self.pop()?, self.pop()?);
                    self.push(Object::Tuple(vec![first, second, third]));
                }
                b')' => self.push(Object::Tuple(vec![])),
                // EMPTY_LIST, APPEND
                b']' => self.push(Object::List(vec![])),
                b'a' => {
                    let item = self.pop()?;
                    match self.top()? {
                        Object::List(items) => items.push(item),
                        _ => return Err(self.damaged("an item is appended to what is no list")),
                    }
                }
                // EMPTY_DICT, SETITEMS
                b'}' => self.push(Object::Dict(vec![])),
                b'u' => {
                    let items = self.pop_to_mark()?;
                    let pairs = items.chunks_exact(2);
                    if !pairs.remainder().is_empty() {
                        return Err(self.damaged("a dictionary key has no value"));
                    }
                    match self.top()? {
                        Object::Dict(entries) => entries.extend(pairs.map(|pair| (pair[0], pair[1]))),
                        _ => return Err(self.damaged("entries are added to what is no dictionary")),
                    }
                }
                // GLOBAL, STACK_GLOBAL
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push_global(module, name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    match (&self.objects[module.0], &self.objects[name.0]) {
                        (&Object::Text(module), &Object::Text(name)) => self.push_global(module, name)?,
                        _ => return Err(self.damaged("a name is no text")),
                    }
                }
                // REDUCE, BUILD
                b'R' => {
                    let (arguments, class) = (self.pop()?, self.pop()?);
                    self.push(Object::Instance { class, arguments, state: None });
                }
                b'b' => {
                    let given = self.pop()?;
                    match self.top()? {
                        Object::Instance { state, .. } => *state = Some(given),
                        _ => return Err(self.damaged("a state is given to what has none")),
                    }
                }
                // MEMOIZE, BINPUT, BINGET
                0x94 => self.memoize(self.memo.len())?,
                b'q' => {
                    let [place] = self.array()?;
                    self.memoize(place.into())?;
                }
                b'h' => {
                    let [place] = self.array()?;
                    let remembered = self.memo.get(&place.into()).copied();
                    let object = remembered.ok_or_else(|| self.damaged("an object is used before it is made"))?;
                    self.stack.push(object);
                }
                // STOP
                b'.' => return self.pop(),
                opcode => return Err(PickleError::Opcode { opcode, offset: self.opcode_at }),
            }
        }
    }

    fn damaged(&self, message: &'static str) -> PickleError {
        PickleError::Damaged { offset: self.opcode_at, message }
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], PickleError> {
        let end = self.next.saturating_add(length);
        let slice = self.bytes.get(self.next..end).ok_or(PickleError::CutOff { offset: self.bytes.len() })?;
        self.next = end;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(N)?);
        Ok(array)
    }

    fn length(&mut self, long: bool) -> Result<usize, PickleError> {
        Ok(if long { u32::from_le_bytes(self.array()?) as usize } else { self.array::<1>()?[0].into() })
    }

    fn text(&mut self, length: usize) -> Result<&'a str, PickleError> {
        std::str::from_utf8(self.slice(length)?).map_err(|_| self.damaged("a text is not UTF-8"))
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = self.bytes.get(self.next..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n');
        let text = self.text(length.ok_or(PickleError::CutOff { offset: self.bytes.len() })?)?;
        self.next += 1;
        Ok(text)
    }

    fn push(&mut self, object: Object<'a>) {
        self.stack.push(Handle(self.objects.len()));
        self.objects.push(object);
    }

    fn push_global(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        let global = match (module, name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Global::Reconstruct,
            ("numpy", "ndarray") => Global::Ndarray,
            ("numpy", "dtype") => Global::Dtype,
            _ => {
                let (module, name) = (module.to_owned(), name.to_owned());
                return Err(PickleError::Global { module, name, offset: self.opcode_at });
            }
        };
        self.push(Object::Global(global));
        Ok(())
    }

    /// Takes the object on top, never one below the last mark.
    fn pop(&mut self) -> Result<Handle, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let object = if self.stack.len() > floor { self.stack.pop() } else { None };
        object.ok_or_else(|| self.damaged("the stack is empty"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Handle>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.damaged("there is no mark on the stack"))?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Result<&mut Object<'a>, PickleError> {
        let top = self.pop()?;
        self.stack.push(top);
        Ok(&mut self.objects[top.0])
    }

    fn memoize(&mut self, place: usize) -> Result<(), PickleError> {
        let top = self.pop()?;
        self.stack.push(top);
        self.memo.insert(place, top);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Pickle;
    use super::*;

    fn error(bytes: &[u8]) -> PickleError {
        Pickle::read(bytes).unwrap_err()
    }

    #[test]
    fn plain_objects_are_read() {
        // {"a": [1, -2], "b": (300, None, b"xy")}, an entry of it through the memo.
        let bytes = b"\x80\x04}\x94(\x8c\x01a]K\x01aJ\xfe\xff\xff\xffa\x8c\x01bM\x2c\x01NC\x02xy\x87u.";
        let pickle = Pickle::read(bytes).unwrap();
        let Object::Dict(entries) = pickle.get(pickle.root()) else { panic!("{pickle:?}") };
        let [(a, list), (b, tuple)] = entries[..] else { panic!("{pickle:?}") };
        assert!(matches!(pickle.get(a), Object::Text("a")) && matches!(pickle.get(b), Object::Text("b")));
        let Object::List(items) = pickle.get(list) else { panic!("{pickle:?}") };
        assert!(matches!(items[..], [one, two] if matches!(pickle.get(one), Object::Integer(1))
            && matches!(pickle.get(two), Object::Integer(-2))));
        let Object::Tuple(items) = pickle.get(tuple) else { panic!("{pickle:?}") };
        assert!(
            matches!(pickle.get(items[0]), Object::Integer(300))
                && matches!(pickle.get(items[2]), Object::Bytes(b"xy"))
        );
    }

    #[test]
    fn a_state_given_later_reaches_earlier_references() {
        // dtype() remembered, put into a list through the memo, then given a state.
        let bytes = b"cnumpy\ndtype\n)Rq\x00]h\x00ah\x00K\x07b\x87.";
        let pickle = Pickle::read(bytes).unwrap();
        let Object::Tuple(items) = pickle.get(pickle.root()) else { panic!("{pickle:?}") };
        let Object::List(listed) = pickle.get(items[1]) else { panic!("{pickle:?}") };
        assert!(matches!(pickle.get(listed[0]), Object::Instance { state: Some(seven), .. }
            if matches!(pickle.get(*seven), Object::Integer(7))));
    }

    #[test]
    fn code_is_refused_by_name_and_place() {
        let system = PickleError::Global { module: "os".into(), name: "system".into(), offset: 2 };
        assert_eq!(error(b"\x80\x03cos\nsystem\n(X\x02\x00\x00\x00idtR."), system);
        assert_eq!(
            error(b"\x8c\x05numpy\x8c\x04load\x93."),
            PickleError::Global { module: "numpy".into(), name: "load".into(), offset: 13 }
        );
        // INST, the old way to call.
        assert_eq!(error(b"(ios\nsystem\n."), PickleError::Opcode { opcode: b'i', offset: 1 });
        assert!(error(b"(ios\nsystem\n.").to_string().contains("opcode 0x69 at byte 1"));
    }

    #[test]
    fn damage_is_named() {
        // A length of four gigabytes allocates nothing.
        assert_eq!(error(b"B\xff\xff\xff\xffxy"), PickleError::CutOff { offset: 7 });
        for (bytes, at) in
            [(&b"."[..], 0), (b"(K\x01a", 3), (b"h\x07.", 0), (b"t", 0), (b"K\x01b", 2), (b"}(Nu.", 3), (b"N.N", 2)]
        {
            assert!(matches!(error(bytes), PickleError::Damaged { offset, .. } if offset == at), "{bytes:?}");
        }
    }

    const OPCODES: &[u8] = b"\x80\x95cX\x8cBCJKMN\x88\x89(t\x85\x87)]}auRb\x94qh.\x93";

    proptest! {
        #[test]
        fn any_bytes_end_without_panic_in_bounded_memory(
            bytes in prop::collection::vec(prop_oneof![1 => any::<u8>(), 3 => prop::sample::select(OPCODES), 1 => 0u8..4], 0..400)
        ) {
            if let Ok(pickle) = Pickle::read(&bytes) {
                prop_assert!(pickle.objects.len() <= bytes.len());
            }
        }
    }
}
