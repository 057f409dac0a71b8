//! Keys and values on a device: every head has exactly the memory that it takes, in one piece of memory for all.

use std::any::Any;
use std::fmt::{self, Debug};
use std::ops::Range;
use std::sync::Arc;

use cokv_core::{Format, HeadLayout, Pairs};
use cokv_models::ModelError;
use cokv_models::backend::foreign;
use cokv_models::cache::Store;
use half::{bf16, f16};

use crate::Result;
use crate::device::{Buffer, Device, Kind, Launch};
use crate::error::CudaError;
use crate::matrix::{read, table};
use crate::plan::tables::{DIRECT, Gather};

/// Rows that a block of `gather` copies.
const GATHERED: usize = 16;

/// Rows by which a cache grows that nobody made room for.
const SLACK: usize = 32;

/// Keys and values of every KV head of one cache: of each head, flat, its keys, `[capacity, head_dim]`, then its values.
pub struct DeviceStore<D: Device> {
    device: Arc<D>,
    layout: HeadLayout,
    kind: Kind,
    heads: Vec<Head>,
    arena: Option<D::Buffer>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    /// Bytes of the arena before it.
    offset: u64,
    rows: usize,
    capacity: usize,
}

/// How a format's numbers are stored.
fn kind_of(format: Format) -> Result<Kind> {
    match format {
        Format::F32 => Ok(Kind::F32),
        Format::F16 => Ok(Kind::F16),
        Format::Bf16 => Ok(Kind::Bf16),
        Format::Q8 | Format::Q4 => {
            let message = "there is no kernel for caches of 8 or 4 bits: use cache = \"f16\", or the processor";
            Err(CudaError::Unsupported(message.into()))
        }
    }
}

impl<D: Device> DeviceStore<D> {
    /// No rows, with room for some in every head.
    pub fn new(device: &Arc<D>, layout: HeadLayout, format: Format, rows: usize) -> Result<Self> {
        let nothing =
            Self { device: Arc::clone(device), layout, kind: kind_of(format)?, heads: Vec::new(), arena: None };
        nothing.with_room(vec![rows; layout.heads()])
    }

    /// How numbers are stored.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    fn row_bytes(&self) -> usize {
        self.layout.head_dim * self.kind.bytes()
    }

    /// Where a head's keys begin, and its values.
    pub fn addresses(&self, head: usize) -> [u64; 2] {
        let Head { offset, capacity, .. } = self.heads[head];
        let keys = self.arena.as_ref().map_or(0, Buffer::address) + offset;
        [keys, keys + (capacity * self.row_bytes()) as u64]
    }

    /// Makes sure that this many rows can be appended to every head.
    pub fn make_room(&mut self, rows: usize) -> Result<()> {
        self.room_for(rows, rows.max(SLACK))
    }

    /// Where there is no room for some rows in every head, makes it for so many.
    fn room_for(&mut self, rows: usize, made: usize) -> Result<()> {
        match self.heads.iter().all(|head| head.capacity >= head.rows + rows) {
            true => Ok(()),
            false => self.grow(|_, head| head.capacity.max(head.rows + made)),
        }
    }

    /// Counts rows that a kernel appended to the heads of a layer.
    pub fn appended(&mut self, layer: usize, rows: usize) {
        let kv_heads = self.layout.kv_heads;
        self.heads[layer * kv_heads..(layer + 1) * kv_heads].iter_mut().for_each(|head| head.rows += rows);
    }

    /// A store like this one whose heads have room for so many rows each, and none yet.
    fn with_room(&self, capacities: impl IntoIterator<Item = usize>) -> Result<Self> {
        let mut offset = 0;
        let mut place = |capacity| {
            let head = Head { offset, rows: 0, capacity };
            offset += 2 * (capacity * self.row_bytes()) as u64;
            head
        };
        let heads = capacities.into_iter().map(&mut place).collect();
        let arena = if offset == 0 { None } else { Some(self.device.allocate(offset as usize)?) };
        Ok(Self { device: Arc::clone(&self.device), layout: self.layout, kind: self.kind, heads, arena })
    }

    /// Moves everything to memory with room for so many rows.
    fn grow(&mut self, capacity: impl Fn(usize, &Head) -> usize) -> Result<()> {
        let mut grown = self.with_room(self.heads.iter().enumerate().map(|(at, head)| capacity(at, head)))?;
        let rows: Vec<_> = self.heads.iter().map(|head| 0..head.rows).collect();
        grown.copy_ranges(self, &rows)?;
        *self = grown;
        Ok(())
    }

    /// Copies a range of each head's rows of another store behind one's own, for which there is room.
    fn copy_ranges(&mut self, from: &Self, rows: &[Range<usize>]) -> Result<()> {
        let bytes = self.row_bytes();
        let of_head = |(head, rows): (usize, &Range<usize>)| {
            let (from, to) = (from.addresses(head), self.addresses(head));
            [0, 1].map(|part| Gather {
                from: from[part] + (rows.start * bytes) as u64,
                to: to[part] + (self.heads[head].rows * bytes) as u64,
                listed: DIRECT,
                count: rows.len() as u32,
            })
        };
        let gathers: Vec<Gather> =
            rows.iter().enumerate().filter(|(_, rows)| !rows.is_empty()).flat_map(of_head).collect();
        self.run(&gathers, &[])?;
        self.heads.iter_mut().zip(rows).for_each(|(head, rows)| head.rows += rows.len());
        Ok(())
    }

    fn run(&self, gathers: &[Gather], rows: &[u32]) -> Result<()> {
        let Some(most) = gathers.iter().map(|gather| gather.count as usize).max() else { return Ok(()) };
        let device = self.device.as_ref();
        let (gathers_at, rows_at) = (table(device, gathers)?, table(device, rows)?);
        let blocks = [gathers.len(), most.div_ceil(GATHERED)];
        let launch = Launch { kernel: "gather", blocks, threads: 128, shared_bytes: 0 };
        device.launch(launch, &[gathers_at.address().into(), rows_at.address().into(), (self.row_bytes() / 4).into()])
    }

    /// Keys of some rows of a head, on the host.
    pub fn some_keys(&self, head: usize, rows: Range<usize>) -> Result<Vec<f32>> {
        let [keys, _] = self.addresses(head);
        let address = keys + (rows.start * self.row_bytes()) as u64;
        widened(self.device.as_ref(), self.kind, address, rows.len() * self.layout.head_dim)
    }

    fn of(store: &dyn Store) -> std::result::Result<&Self, ModelError> {
        (store as &dyn Any).downcast_ref().ok_or_else(|| foreign("cache"))
    }
}

impl<D: Device> Store for DeviceStore<D> {
    fn rows(&self, head: usize) -> usize {
        self.heads[head].rows
    }

    fn empty(&self) -> Box<dyn Store> {
        let heads = vec![Head::default(); self.layout.heads()];
        Box::new(Self { device: Arc::clone(&self.device), layout: self.layout, kind: self.kind, heads, arena: None })
    }

    fn gather(&self, rows: &[&[u32]]) -> std::result::Result<Box<dyn Store>, ModelError> {
        let mut copy = self.with_room(rows.iter().map(|rows| rows.len()))?;
        let mut listed = 0;
        let mut gathers = Vec::with_capacity(2 * rows.len());
        for (head, rows) in rows.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let (from, to) = (self.addresses(head), copy.addresses(head));
            gathers.extend([0, 1].map(|part| Gather {
                from: from[part],
                to: to[part],
                listed,
                count: rows.len() as u32,
            }));
            listed += rows.len() as u32;
        }
        copy.run(&gathers, &rows.concat())?;
        copy.heads.iter_mut().for_each(|head| head.rows = head.capacity);
        Ok(Box::new(copy))
    }

    fn append(&mut self, from: &dyn Store, rows: &[Range<usize>]) -> std::result::Result<(), ModelError> {
        let from = Self::of(from)?;
        let needed = |at: usize, head: &Head| head.rows + rows[at].len();
        if self.heads.iter().enumerate().any(|(at, head)| head.capacity < needed(at, head)) {
            self.grow(|at, head| head.capacity.max(needed(at, head)))?;
        }
        Ok(self.copy_ranges(from, rows)?)
    }

    fn reserve(&mut self, rows: usize) -> std::result::Result<(), ModelError> {
        Ok(self.room_for(rows, rows)?)
    }

    fn forget(&mut self, rows: usize) {
        self.heads.iter_mut().for_each(|head| head.rows -= rows);
    }

    fn allocated_bytes(&self) -> usize {
        self.arena.as_ref().map_or(0, Buffer::bytes)
    }

    fn of_pairs(&self, heads: &[Pairs]) -> std::result::Result<Box<dyn Store>, ModelError> {
        if heads.iter().any(|pairs| !pairs.biases.is_empty()) {
            let message = "there is no kernel for biases of pairs, which attention matching fits: use the processor";
            return Err(CudaError::Unsupported(message.into()).into());
        }
        let mut store = self.with_room(heads.iter().map(|pairs| pairs.keys.len() / self.layout.head_dim))?;
        for (head, pairs) in heads.iter().enumerate() {
            for (address, numbers) in store.addresses(head).into_iter().zip([&pairs.keys, &pairs.values]) {
                write(self.device.as_ref(), self.kind, address, numbers)?;
            }
        }
        store.heads.iter_mut().for_each(|head| head.rows = head.capacity);
        Ok(Box::new(store))
    }

    fn read(&self, head: usize) -> std::result::Result<Pairs, ModelError> {
        let count = self.heads[head].rows * self.layout.head_dim;
        let [keys, values] =
            self.addresses(head).map(|address| widened(self.device.as_ref(), self.kind, address, count));
        Ok(Pairs { keys: keys?, values: values?, biases: Vec::new() })
    }
}

impl<D: Device> Debug for DeviceStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceStore")
            .field("kind", &self.kind)
            .field("heads", &self.heads)
            .field("arena", &self.arena)
            .finish()
    }
}

/// Numbers of the host, to a device as they are stored there.
fn write<D: Device>(device: &D, kind: Kind, address: u64, numbers: &[f32]) -> Result<()> {
    match kind {
        Kind::F32 => device.upload(bytemuck::cast_slice(numbers), address),
        Kind::F16 => {
            let bits: Vec<u16> = numbers.iter().map(|&number| f16::from_f32(number).to_bits()).collect();
            device.upload(bytemuck::cast_slice(&bits), address)
        }
        Kind::Bf16 => {
            let bits: Vec<u16> = numbers.iter().map(|&number| bf16::from_f32(number).to_bits()).collect();
            device.upload(bytemuck::cast_slice(&bits), address)
        }
    }
}

/// Numbers of a device, in f32 on the host.
fn widened<D: Device>(device: &D, kind: Kind, address: u64, count: usize) -> Result<Vec<f32>> {
    Ok(match kind {
        Kind::F32 => read(device, address, count)?,
        Kind::F16 => {
            read::<D, u16>(device, address, count)?.into_iter().map(|bits| f16::from_bits(bits).to_f32()).collect()
        }
        Kind::Bf16 => {
            read::<D, u16>(device, address, count)?.into_iter().map(|bits| bf16::from_bits(bits).to_f32()).collect()
        }
    })
}
