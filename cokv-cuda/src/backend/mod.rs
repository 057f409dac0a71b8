//! The backend: twenty functions of which the decoder is made, on a device.

mod answer;
mod ceilings;
mod pass;
mod watch;

use std::sync::{Arc, OnceLock};

use cokv_core::{Format, HeadLayout, ObservationRequest, Replayed, RotaryPairs};
use cokv_models::ask::{Answer, Ask};
use cokv_models::backend::{Backend, Ceilings, Layer, LayerSummaries, Observed, Projected, Replaying, Result, Span};
use cokv_models::rope;
use cokv_models::weights::{Stored, WeightType};

use self::answer::answer;
use self::pass::Pass;
use self::watch::{SUM_BYTES, Watch};
use crate::CudaError;
use crate::device::{Buffer, Device, Kind, Launch};
use crate::kernels::LARGEST_HEAD_DIM;
use crate::linear::{self, Linear, Read};
use crate::matrix::{Matrix, by_rows, elementwise, table};
use crate::store::DeviceStore;

/// Everything on one device: weights, caches, attention, answers. The same inputs in the same batch give the same bits.
pub struct Cuda<D: Device> {
    device: Arc<D>,
    /// How operands of products are stored: as the first weight is.
    operand: OnceLock<Kind>,
}

/// Rotations of a pass.
pub struct Angles<B> {
    /// `[tokens, head_dim / 2]`
    cosines: B,
    /// Likewise.
    sines: B,
    /// Whether pairs are neighbours, else the two halves of a head.
    neighbours: bool,
}

impl<D: Device> Cuda<D> {
    /// A backend on a device.
    pub fn new(device: D) -> Self {
        Self { device: Arc::new(device), operand: OnceLock::new() }
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    fn operand(&self) -> Kind {
        self.operand.get().copied().unwrap_or(Kind::F32)
    }

    fn loaded(&self, weights: Vec<Read>, held: WeightType) -> Result<Vec<Linear<D::Buffer>>> {
        let dense = held == WeightType::F32;
        let mut kinds = weights.iter().map(|(weight, _)| linear::kind_of(weight, dense));
        let kind = kinds.next().unwrap_or(Kind::F32);
        self.operand.get_or_init(|| kind);
        if kinds.all(|other| other == kind) {
            return Linear::load(self.device(), weights, kind);
        }
        let one = |read: Read| {
            let kind = linear::kind_of(&read.0, dense);
            Linear::load(self.device(), vec![read], kind)
        };
        Ok(weights.into_iter().map(one).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }
}

impl<D: Device> Backend for Cuda<D> {
    type Matrix = Matrix<D::Buffer>;
    type Linear = Linear<D::Buffer>;
    type Store = DeviceStore<D>;
    type Watch = Watch<D>;
    type Pass<'a> = Pass<'a, D>;
    type Angles = Angles<D::Buffer>;

    fn name(&self) -> &'static str {
        self.device.name()
    }

    fn free_bytes(&self) -> Option<u64> {
        self.device.free_bytes()
    }

    fn take_peak_bytes(&self) -> Option<u64> {
        self.device.take_peak_bytes()
    }

    fn ceilings(&self) -> Result<Option<Ceilings>> {
        Ok(Some(ceilings::measure(self.device(), self.operand())?))
    }

    fn matrix(&self, numbers: Vec<f32>, width: usize) -> Result<Self::Matrix> {
        Ok(Matrix::upload(self.device(), &numbers, width)?)
    }

    fn numbers(&self, x: &Self::Matrix) -> Result<Vec<f32>> {
        Ok(x.download(self.device())?)
    }

    fn load(&self, weight: Stored, bias: Option<Vec<f32>>, held: WeightType) -> Result<Self::Linear> {
        let mut loaded = self.loaded(vec![(weight, bias)], held)?;
        Ok(loaded.swap_remove(0))
    }

    fn load_together<const N: usize>(
        &self,
        read: impl FnMut(usize) -> Result<Read>,
        held: WeightType,
    ) -> Result<[Self::Linear; N]> {
        let weights = (0..N).map(read).collect::<Result<Vec<_>>>()?;
        let loaded = self.loaded(weights, held)?.try_into();
        Ok(loaded.unwrap_or_else(|_| unreachable!("as many as were read")))
    }

    fn bytes(&self, linear: &Self::Linear) -> usize {
        linear.bytes()
    }

    fn embed(&self, of: &Self::Linear, tokens: &[u32]) -> Result<Self::Matrix> {
        let device = self.device();
        let tokens_at = table(device, tokens)?;
        let to = Matrix::new(device, tokens.len(), of.in_features(), Kind::F32)?;
        let operand = of.operand();
        let arguments = [
            operand.address.into(),
            operand.kind.into(),
            tokens_at.address().into(),
            to.address().into(),
            to.width.into(),
        ];
        device.launch(by_rows("embed", to.rows), &arguments)?;
        Ok(to)
    }

    fn linear<const N: usize>(&self, layers: [&Self::Linear; N], x: &Self::Matrix) -> Result<[Self::Matrix; N]> {
        Ok(Linear::forward(self.device(), layers, x)?)
    }

    fn rms_norm(&self, x: &Self::Matrix, weight: &Self::Matrix, epsilon: f32) -> Result<Self::Matrix> {
        let device = self.device();
        let (length, runs) = (weight.width, x.width / weight.width);
        // What a whole row becomes is an operand of products; heads are still to be turned.
        let kind = if runs == 1 { self.operand() } else { Kind::F32 };
        let to = Matrix::new(device, x.rows, x.width, kind)?;
        let arguments = [
            x.address().into(),
            x.stride.into(),
            weight.address().into(),
            to.address().into(),
            kind.into(),
            length.into(),
            runs.into(),
            epsilon.into(),
            (x.is_wide() && length.is_multiple_of(4)).into(),
        ];
        let threads = length.next_multiple_of(32).min(256);
        device.launch(
            Launch { kernel: "rms_norm", blocks: [x.rows * runs, 1], threads, shared_bytes: SUM_BYTES },
            &arguments,
        )?;
        Ok(to)
    }

    fn silu_times(&self, gate: &Self::Matrix, up: &Self::Matrix) -> Result<Self::Matrix> {
        let device = self.device();
        let to = Matrix::new(device, gate.rows, gate.width, self.operand())?;
        let (gate, up) = match gate.stride == up.stride {
            true => (gate.clone(), up.clone()),
            false => (gate.contiguous(device, Kind::F32)?, up.contiguous(device, Kind::F32)?),
        };
        let arguments = [
            gate.address().into(),
            up.address().into(),
            gate.stride.into(),
            to.address().into(),
            to.kind.into(),
            to.width.into(),
            (gate.is_wide() && up.is_wide()).into(),
        ];
        device.launch(elementwise("silu_times", to.rows, to.width), &arguments)?;
        Ok(to)
    }

    fn add_linear(&self, a: Self::Matrix, layer: &Self::Linear, x: &Self::Matrix) -> Result<Self::Matrix> {
        layer.add_to(self.device(), x, &a)?;
        Ok(a)
    }

    fn angles(&self, angles: rope::Angles) -> Result<Self::Angles> {
        let device = self.device();
        let neighbours = angles.pairs() == RotaryPairs::Neighbours;
        Ok(Angles { cosines: table(device, angles.cosines())?, sines: table(device, angles.sines())?, neighbours })
    }

    fn rows(&self, x: &Self::Matrix, rows: &[usize]) -> Result<Self::Matrix> {
        let device = self.device();
        let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        let rows_at = table(device, &rows)?;
        let to = Matrix::new(device, rows.len(), x.width, x.kind)?;
        let arguments = [
            x.address().into(),
            x.kind.into(),
            x.stride.into(),
            rows_at.address().into(),
            to.address().into(),
            x.width.into(),
        ];
        device.launch(by_rows("take_rows", to.rows), &arguments)?;
        Ok(to)
    }

    fn store(&self, layout: HeadLayout, format: Format, tokens: usize) -> Result<Self::Store> {
        if layout.head_dim > LARGEST_HEAD_DIM || !layout.head_dim.is_multiple_of(2) {
            let message = format!(
                "there is no kernel for heads of {} numbers, only for even ones up to {LARGEST_HEAD_DIM}",
                layout.head_dim
            );
            return Err(CudaError::Unsupported(message).into());
        }
        Ok(DeviceStore::new(&self.device, layout, format, tokens)?)
    }

    fn watch(&self, layout: HeadLayout, request: ObservationRequest, prompt_len: usize) -> Self::Watch {
        Watch::new(&self.device, layout, request, prompt_len)
    }

    fn watch_replay(&self, layout: HeadLayout, replaying: Replaying) -> Self::Watch {
        Watch::of_replay(&self.device, layout, replaying)
    }

    fn replayed(&self, watch: &mut Self::Watch, layer: usize) -> Result<Replayed> {
        Ok(watch.replayed(layer))
    }

    fn watch_queries(&self, layout: HeadLayout, count: usize) -> Self::Watch {
        Watch::of_answer(&self.device, layout, count)
    }

    fn last_queries(&self, watch: &Self::Watch, layer: usize) -> Vec<f32> {
        watch.last_queries(layer)
    }

    fn pass<'a>(&self, layout: HeadLayout, spans: Vec<Span<'a, Self>>) -> Result<Self::Pass<'a>> {
        Ok(Pass::new(self.device(), layout, spans)?)
    }

    fn observe(&self, pass: &mut Self::Pass<'_>, layer: usize, observed: Observed<'_, Self>) -> Result<()> {
        let Observed { inputs, queries, values, output } = observed;
        for (first, span) in pass.watched() {
            let of_row = [inputs, queries, values].map(|matrix| matrix.some_rows(first, span.tokens));
            for watch in &mut span.watches {
                watch.observe(layer, of_row.each_ref(), output)?;
            }
        }
        Ok(())
    }

    fn attend(
        &self,
        pass: &mut Self::Pass<'_>,
        layer: Layer,
        projected: Projected<Self>,
        angles: &Self::Angles,
    ) -> Result<Self::Matrix> {
        Ok(pass.attend(self.device(), layer, projected, angles, self.operand())?)
    }

    fn summaries(
        &self,
        _: HeadLayout,
        watch: &Self::Watch,
        prompt: &Self::Store,
        layer: Layer,
    ) -> Result<LayerSummaries> {
        watch.summaries(layer, prompt)
    }

    fn chunk(&self) -> usize {
        4096
    }

    fn logits_at_once(&self) -> usize {
        1 << 28
    }

    fn answer(
        &self,
        hidden: &Self::Matrix,
        logits: &Self::Matrix,
        asks: &[(Ask<'_>, usize)],
        answers: &mut Vec<Answer>,
    ) -> Result<()> {
        answer(&self.device, hidden, logits, asks, answers)
    }
}
