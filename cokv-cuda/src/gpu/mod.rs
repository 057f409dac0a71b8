//! A GPU, by CUDA's driver, which is looked for when one is asked for: nothing of NVIDIA's is needed to build or to start.

mod compile;
mod libraries;
mod product;
mod staging;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
use cudarc::driver::sys::CUmemPool_attribute_enum as PoolAttribute;
use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DriverError, LaunchConfig, PushKernelArg,
    result, sys,
};
use cudarc::nvrtc::Ptx;

pub use self::compile::{Resources, resources};
pub use self::libraries::{FOLDER, find_compiler};
use self::product::{Products, WORKSPACE};
use self::staging::Staging;
use crate::device::{Argument, Buffer, Device, Launch, Product};
use crate::error::{CudaError, Result};
use crate::kernels::Program;

/// Shared memory that a block has without asking.
const SHARED_BYTES: usize = 48 << 10;

/// What it mostly means where machine code is not taken.
const OLD_DRIVER: &str = "a driver older than the CUDA version of NVRTC takes no code of it: update the driver, or name a folder with an \
                          older NVRTC in COKV_CUDA_LIBRARIES";

/// One GPU, with one stream on which everything happens.
pub struct Gpu {
    // Fields are dropped in this order: what lies on the device before its context.
    products: Mutex<Products>,
    functions: Mutex<HashMap<String, CudaFunction>>,
    programs: Mutex<HashMap<Program, Arc<CudaModule>>>,
    staging: Mutex<Staging>,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    pool: Pool,
    multiprocessors: usize,
    card: String,
    capability: (i32, i32),
    head_dim: usize,
    cache: Option<PathBuf>,
}

/// The device's pool of memory.
#[derive(Clone, Copy)]
struct Pool(sys::CUmemoryPool);

// SAFETY: a handle, which the driver lets any thread use.
unsafe impl Send for Pool {}
// SAFETY: likewise.
unsafe impl Sync for Pool {}

/// Memory of a GPU.
#[derive(Debug)]
pub struct GpuBuffer {
    address: u64,
    memory: CudaSlice<u8>,
}

impl Gpu {
    /// The GPU of this number, with kernels for heads of some size, which are compiled or taken from the cache folder.
    ///
    /// # Errors
    /// What is missing, and where it was looked for; a card that is too old; memory that other processes have taken.
    pub fn open(index: usize, head_dim: usize, cache: Option<&Path>) -> Result<Self> {
        libraries::find()?;
        result::init().map_err(|error| CudaError::call("cuInit", error))?;
        let found = CudaContext::device_count().map_err(|error| CudaError::call("cuDeviceGetCount", error))? as usize;
        if index >= found {
            return Err(CudaError::NoDevice { asked: index, found });
        }
        let failed = |call: &'static str| move |error: DriverError| CudaError::call(call, error);
        let context = CudaContext::new(index).map_err(failed("cuDevicePrimaryCtxRetain"))?;
        // SAFETY: everything is on one stream, whose order is that of the calls.
        unsafe { context.disable_event_tracking() };
        let card = context.name().map_err(failed("cuDeviceGetName"))?;
        let capability = context.compute_capability().map_err(failed("cuDeviceGetAttribute"))?;
        if capability < (8, 0) {
            return Err(CudaError::TooOld { card, capability });
        }
        if !context.has_async_alloc() {
            return Err(CudaError::Unsupported(format!("{card}: its driver has no memory pools (cuMemAllocAsync)")));
        }
        let count = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
        let multiprocessors = count.map_err(failed("cuDeviceGetAttribute"))? as usize;
        let stream = context.new_stream().map_err(failed("cuStreamCreate"))?;
        let pool = Pool::of(&context).map_err(failed("cuMemPoolSetAttribute"))?;
        let workspace = allocate(&stream, WORKSPACE)?;
        let products = Mutex::new(Products::new(workspace)?);
        let gpu = Self {
            products,
            functions: Mutex::default(),
            programs: Mutex::default(),
            staging: Mutex::new(Staging::new(&context).map_err(failed("cuMemHostAlloc"))?),
            stream,
            context,
            pool,
            multiprocessors,
            card,
            capability,
            head_dim,
            cache: cache.map(Path::to_path_buf),
        };
        // What does not compile is said before weights are read.
        gpu.program(Program::General)?;
        Ok(gpu)
    }

    /// The machine code of a program, compiled or taken from the cache folder when it is first needed.
    fn program(&self, program: Program) -> Result<Arc<CudaModule>> {
        let mut programs = lock(&self.programs);
        if let Some(module) = programs.get(&program) {
            return Ok(Arc::clone(module));
        }
        let image = compile::cubin(program, self.capability, self.head_dim, self.cache.as_deref())?;
        let module = self
            .context
            .load_module(Ptx::from_binary(image))
            .map_err(|error| CudaError::call("cuModuleLoadData", format!("{error} ({OLD_DRIVER})")))?;
        programs.insert(program, Arc::clone(&module));
        Ok(module)
    }

    /// A kernel by its name, allowed to have the shared memory that it needs.
    fn function(&self, name: &str, shared_bytes: usize) -> Result<CudaFunction> {
        let mut functions = lock(&self.functions);
        if let Some(function) = functions.get(name) {
            return Ok(function.clone());
        }
        let function = self
            .program(Program::of(name))?
            .load_function(name)
            .map_err(|error| CudaError::call("cuModuleGetFunction", format!("{name}: {error}")))?;
        if shared_bytes > SHARED_BYTES {
            let limit = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let set = function.set_attribute(limit, shared_bytes as i32);
            set.map_err(|error| {
                CudaError::call("cuFuncSetAttribute", format!("{name}, {shared_bytes} bytes: {error}"))
            })?;
        }
        functions.insert(name.to_owned(), function.clone());
        Ok(function)
    }

    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|error| CudaError::call("cuCtxSetCurrent", error))
    }
}

impl Pool {
    /// The pool that allocations come from, told to keep what is freed: giving it back at every synchronisation costs more than
    /// the work between.
    fn of(context: &CudaContext) -> std::result::Result<Self, DriverError> {
        // SAFETY: the device is the context's; the attribute is a u64.
        unsafe {
            let pool = result::device::get_mem_pool(context.cu_device())?;
            let mut everything = u64::MAX;
            let threshold = PoolAttribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            result::mem_pool::set_attribute(pool, threshold, (&raw mut everything).cast())?;
            Ok(Self(pool))
        }
    }

    /// Bytes that it holds and nobody uses.
    fn idle(self) -> Option<u64> {
        let reserved = self.bytes(PoolAttribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
        Some(reserved.saturating_sub(self.bytes(PoolAttribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?))
    }

    /// Most bytes that were in use, which is counted anew from here on.
    fn take_peak(self) -> Option<u64> {
        let peak = PoolAttribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        let bytes = self.bytes(peak)?;
        let mut nothing = 0u64;
        // SAFETY: the attribute is a u64, of which 0 alone may be set.
        unsafe { result::mem_pool::set_attribute(self.0, peak, (&raw mut nothing).cast()) }.ok()?;
        Some(bytes)
    }

    fn bytes(self, attribute: PoolAttribute) -> Option<u64> {
        let mut bytes = 0u64;
        // SAFETY: all attributes that are asked for here are a u64.
        unsafe { result::mem_pool::get_attribute(self.0, attribute, (&raw mut bytes).cast()) }.ok()?;
        Some(bytes)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn allocate(stream: &Arc<CudaStream>, bytes: usize) -> Result<CudaSlice<u8>> {
    // SAFETY: nobody reads what was not written: kernels and copies are told apart by the callers.
    unsafe { stream.alloc::<u8>(bytes) }.map_err(|error| match error.0 {
        sys::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY => {
            let (free, total) = stream.context().mem_get_info().unwrap_or_default();
            CudaError::OutOfMemory { asked: bytes as u64, free: free as u64, total: total as u64 }
        }
        _ => CudaError::call("cuMemAllocAsync", error),
    })
}

impl Buffer for GpuBuffer {
    fn address(&self) -> u64 {
        self.address
    }

    fn bytes(&self) -> usize {
        self.memory.len()
    }
}

impl Device for Gpu {
    type Buffer = GpuBuffer;

    fn name(&self) -> &'static str {
        "cuda"
    }

    fn description(&self) -> String {
        self.card.clone()
    }

    fn take_peak_bytes(&self) -> Option<u64> {
        self.pool.take_peak()
    }

    fn blocks_at_once(&self) -> usize {
        2 * self.multiprocessors
    }

    fn free_bytes(&self) -> Option<u64> {
        let (free, _) = self.context.mem_get_info().ok()?;
        Some(free as u64 + self.pool.idle().unwrap_or(0))
    }

    fn allocate(&self, bytes: usize) -> Result<GpuBuffer> {
        let memory = allocate(&self.stream, bytes.max(1))?;
        let (address, _) = memory.device_ptr(&self.stream);
        Ok(GpuBuffer { address, memory })
    }

    fn upload(&self, from: &[u8], to: u64) -> Result<()> {
        if from.is_empty() {
            return Ok(());
        }
        self.bind()?;
        let failed = |error| CudaError::call("cuMemcpyHtoDAsync", error);
        let mut staging = lock(&self.staging);
        let from = staging.place(from, &self.stream).map_err(failed)?.unwrap_or(from);
        // SAFETY: the destination is part of a live buffer. The source stays where it is until the card has read it, or is not
        // pinned, and then it is copied before the call returns.
        unsafe { result::memcpy_htod_async(to, from, self.stream.cu_stream()) }.map_err(failed)
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        if to.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the source is part of a live buffer, and the destination is borrowed until the stream is done.
        unsafe { result::memcpy_dtoh_async(to, from, self.stream.cu_stream()) }
            .map_err(|error| CudaError::call("cuMemcpyDtoHAsync", error))?;
        self.synchronise()
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: both are parts of live buffers.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) }
            .map_err(|error| CudaError::call("cuMemcpyDtoDAsync", error))
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: part of a live buffer.
        unsafe { result::memset_d8_async(at, 0, bytes, self.stream.cu_stream()) }
            .map_err(|error| CudaError::call("cuMemsetD8Async", error))
    }

    fn launch(&self, launch: Launch<'_>, arguments: &[Argument]) -> Result<()> {
        let Launch { kernel, blocks: [x, y], threads, shared_bytes } = launch;
        if x * y == 0 {
            return Ok(());
        }
        let function = self.function(kernel, shared_bytes)?;
        let mut builder = self.stream.launch_builder(&function);
        for argument in arguments {
            match argument {
                Argument::Address(address) => builder.arg(address),
                Argument::Int(number) => builder.arg(number),
                Argument::Float(number) => builder.arg(number),
            };
        }
        let grid_dim = (x as u32, y as u32, 1);
        let config =
            LaunchConfig { grid_dim, block_dim: (threads as u32, 1, 1), shared_mem_bytes: shared_bytes as u32 };
        // SAFETY: arguments are those that the kernel declares (tests run every kernel on the emulator), and addresses are of live
        // buffers: memory is freed in the order of the stream.
        let launched = unsafe { builder.launch(config) };
        launched.map(drop).map_err(|error| {
            CudaError::call("cuLaunchKernel", format!("{kernel}, {x} x {y} blocks of {threads}: {error}"))
        })
    }

    fn product(&self, product: &Product) -> Result<()> {
        if product.rows == 0 {
            return Ok(());
        }
        self.bind()?;
        let mut products = lock(&self.products);
        let workspace = products.workspace().device_ptr(&self.stream).0;
        products.run(product, self.stream.cu_stream().cast(), workspace)
    }

    fn synchronise(&self) -> Result<()> {
        self.stream.synchronize().map_err(|error| CudaError::call("cuStreamSynchronize", error))
    }
}

/// Whether there is a GPU that the kernels can run on: what `auto` asks before anything is opened.
pub fn is_there() -> bool {
    // SAFETY: opens the driver's library and closes it again.
    if !unsafe { sys::is_culib_present() } || result::init().is_err() {
        return false;
    }
    // SAFETY: the device is the driver's first.
    let capable = |device| unsafe {
        result::device::get_attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
            .is_ok_and(|major| major >= 8)
    };
    result::device::get(0).is_ok_and(capable)
}
