//! The part of Python's pickle language that a NumPy file of plain arrays uses, and no more.
//!
//! A pickle is a program for a stack machine, and in Python it may call anything. This machine calls nothing: it knows
//! the 29 opcodes and 3 globals that the score files of CoKV's authors contain, and a call or a state is recorded, not
//! carried out. Texts and bytes are slices of the input, and every opcode makes at most one object, so memory is
//! bounded by the length of the input.

mod machine;

use thiserror::Error;

/// Why a pickle was not read. Offsets count bytes from the start of the pickle.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PickleError {
    /// An opcode that plain arrays do not need.
    #[error(
        "the pickle uses opcode {opcode:#04x} at byte {offset}, which no file of plain arrays needs; it is not read"
    )]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Where it is.
        offset: usize,
    },
    /// A Python object that plain arrays do not need.
    #[error("the pickle names `{module}.{name}` at byte {offset}, which no file of plain arrays needs; it is not read")]
    Global {
        /// Its module.
        module: String,
        /// Its name.
        name: String,
        /// Where it is named.
        offset: usize,
    },
    /// The input ends within the pickle.
    #[error("the pickle is cut off: byte {offset} is past its end; fetch the file again")]
    CutOff {
        /// First byte that is missing.
        offset: usize,
    },
    /// An opcode does not find what it works on.
    #[error("the pickle is damaged at byte {offset}: {message}; fetch the file again")]
    Damaged {
        /// Where.
        offset: usize,
        /// What is missing.
        message: &'static str,
    },
}

/// A Python object that may be called or named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    /// `numpy.core.multiarray._reconstruct`: makes an empty array, to be filled by its state.
    Reconstruct,
    /// `numpy.ndarray`
    Ndarray,
    /// `numpy.dtype`
    Dtype,
}

/// Names an object of a [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(usize);

/// A Python object; what it contains is named by handles, because objects may be shared and changed after.
#[derive(Debug)]
pub enum Object<'a> {
    /// `None`, `True` or `False`
    Singleton,
    /// `int`
    Integer(i64),
    /// `str`
    Text(&'a str),
    /// `bytes`
    Bytes(&'a [u8]),
    /// `tuple`
    Tuple(Vec<Handle>),
    /// `list`
    List(Vec<Handle>),
    /// `dict`, in the order of its entries.
    Dict(Vec<(Handle, Handle)>),
    /// An object that has a name.
    Global(Global),
    /// What calling `class` with `arguments` would make, and the state it would be given.
    Instance {
        /// What would be called.
        class: Handle,
        /// With which tuple.
        arguments: Handle,
        /// What its `__setstate__` would be given.
        state: Option<Handle>,
    },
}

/// The objects of a pickle.
#[derive(Debug)]
pub struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    root: Handle,
}

impl<'a> Pickle<'a> {
    /// Reads a whole pickle.
    pub fn read(bytes: &'a [u8]) -> Result<Self, PickleError> {
        let (objects, root) = machine::run(bytes)?;
        Ok(Self { objects, root })
    }

    /// The object that was pickled.
    pub fn root(&self) -> Handle {
        self.root
    }

    /// An object of this pickle.
    pub fn get(&self, handle: Handle) -> &Object<'a> {
        &self.objects[handle.0]
    }
}
