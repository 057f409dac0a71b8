//! Products of matrices by cuBLASLt.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;

use cudarc::cublaslt::{result, sys};
use cudarc::driver::CudaSlice;

use crate::device::{Kind, Product};
use crate::error::{CudaError, Result};

/// Bytes that cuBLASLt may work in, as NVIDIA advises for Hopper.
pub const WORKSPACE: usize = 32 << 20;

/// What a choice of algorithm depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    kind: Kind,
    rows: usize,
    columns: usize,
    inner: usize,
    strides: [usize; 3],
    /// Largest power of two, up to 256, that divides all addresses.
    alignment: u32,
}

/// A product that is ready to run: descriptions and the algorithm for them.
struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    weight: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    y: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// cuBLASLt with the plans made so far.
pub struct Products {
    handle: sys::cublasLtHandle_t,
    plans: HashMap<Shape, Plan>,
    workspace: CudaSlice<u8>,
}

// SAFETY: handles and descriptions are pointers into memory of the library's, which any thread may use, one at a time.
unsafe impl Send for Products {}

impl Products {
    pub fn new(workspace: CudaSlice<u8>) -> Result<Self> {
        let handle = result::create_handle().map_err(|error| CudaError::call("cublasLtCreate", error))?;
        Ok(Self { handle, plans: HashMap::new(), workspace })
    }

    /// Runs a product on a stream.
    pub fn run(&mut self, product: &Product, stream: sys::cudaStream_t, workspace: u64) -> Result<()> {
        let shape = Shape::of(product);
        if !self.plans.contains_key(&shape) {
            let plan = Plan::new(self.handle, &shape)
                .map_err(|error| CudaError::call("cublasLtMatmulAlgoGetHeuristic", error))?;
            self.plans.insert(shape, plan);
        }
        let plan = &self.plans[&shape];
        let (one, beta) = (1f32, if product.accumulate { 1f32 } else { 0.0 });
        // SAFETY: the addresses are of buffers that hold the matrices described, which is what a `Product` promises.
        unsafe {
            result::matmul(
                self.handle,
                plan.description,
                ptr::from_ref(&one).cast(),
                ptr::from_ref(&beta).cast(),
                product.weight.address as *const c_void,
                plan.weight,
                product.x.address as *const c_void,
                plan.x,
                product.y as *const c_void,
                plan.y,
                product.y as *mut c_void,
                plan.y,
                &plan.algorithm,
                workspace as *mut c_void,
                self.workspace.len(),
                stream,
            )
        }
        .map_err(|error| CudaError::call("cublasLtMatmul", error))
    }

    pub fn workspace(&self) -> &CudaSlice<u8> {
        &self.workspace
    }
}

impl Shape {
    fn of(product: &Product) -> Self {
        let Product { x, weight, y, y_stride, rows, columns, inner, .. } = *product;
        let bits = x.address | weight.address | y;
        Self {
            kind: weight.kind,
            rows,
            columns,
            inner,
            strides: [x.stride, weight.stride, y_stride],
            alignment: 1 << bits.trailing_zeros().min(8),
        }
    }
}

impl Plan {
    /// cuBLASLt's matrices are column-major: yᵀ = w xᵀ there, with the weight transposed.
    fn new(handle: sys::cublasLtHandle_t, shape: &Shape) -> std::result::Result<Self, result::CublasError> {
        let kind = match shape.kind {
            Kind::F32 => sys::cudaDataType::CUDA_R_32F,
            Kind::F16 => sys::cudaDataType::CUDA_R_16F,
            Kind::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        };
        let (rows, columns, inner) = (shape.rows as u64, shape.columns as u64, shape.inner as u64);
        let [x_stride, weight_stride, y_stride] = shape.strides.map(|stride| stride as i64);
        let f32 = sys::cudaDataType::CUDA_R_32F;
        let description = result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, f32)?;
        // CUBLAS_OP_T
        let transposed = 1i32;
        let weight = result::create_matrix_layout(kind, inner, columns, weight_stride)?;
        let x = result::create_matrix_layout(kind, inner, rows, x_stride)?;
        let y = result::create_matrix_layout(f32, columns, rows, y_stride)?;
        let preference = result::create_matmul_pref()?;
        // SAFETY: all were just made, and attributes are of the sizes that the library documents.
        let found = unsafe {
            let transpose = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA;
            result::set_matmul_desc_attribute(
                description,
                transpose,
                ptr::from_ref(&transposed).cast(),
                size_of_val(&transposed),
            )?;
            use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
            let bytes = WORKSPACE as u64;
            let limit = Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            result::set_matmul_pref_attribute(preference, limit, ptr::from_ref(&bytes).cast(), size_of_val(&bytes))?;
            for operand in [
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
            ] {
                let alignment = shape.alignment;
                result::set_matmul_pref_attribute(
                    preference,
                    operand,
                    ptr::from_ref(&alignment).cast(),
                    size_of_val(&alignment),
                )?;
            }
            let found = result::get_matmul_algo_heuristic(handle, description, weight, x, y, y, preference);
            result::destroy_matmul_pref(preference)?;
            found?
        };
        Ok(Self { description, weight, x, y, algorithm: found.algo })
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: made in `new`, and used by nobody any more: products that run have copies.
        unsafe {
            let _ = result::destroy_matmul_desc(self.description);
            for layout in [self.weight, self.x, self.y] {
                let _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        self.plans.clear();
        // SAFETY: made in `new`.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}
