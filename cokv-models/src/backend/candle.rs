//! Linear layers, norms and the output layer on a device of candle's; attention and caches on the host: queries, keys and
//! values of the new tokens travel, caches do not.

use candle_core::quantized::QMatMul;
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::ops;
use cokv_core::{Format, HeadLayout, ObservationRequest, Replayed};

use super::host::{self, HostStore, Pass, Recorder};
use super::{Backend, Layer, LayerSummaries, Observed, Projected, Replaying, Result, Span};
use crate::ask::{Answer, Ask};
use crate::rope::Angles;
use crate::weights::{Numbers, Stored, WeightType};

/// One of candle's devices.
#[derive(Clone, Debug)]
pub struct Candle {
    device: Device,
}

/// `y = x wᵀ + b`
pub struct Linear {
    weight: QMatMul,
    bias: Option<Tensor>,
}

impl Candle {
    /// Candle's own arithmetic on the processor: for tests.
    pub fn cpu() -> Self {
        Self { device: Device::Cpu }
    }

    /// The Metal device of this number.
    ///
    /// # Errors
    /// Where the build has no Metal, or the machine no such device.
    pub fn metal(index: usize) -> Result<Self> {
        Ok(Self { device: Device::new_metal(index)? })
    }

    fn host(&self, x: &Tensor) -> Result<Vec<f32>> {
        Ok(x.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?)
    }

    fn tensor(&self, numbers: Vec<f32>, width: usize) -> Result<Tensor> {
        let rows = numbers.len() / width;
        Ok(Tensor::from_vec(numbers, (rows, width), &self.device)?)
    }
}

impl Linear {
    fn rows(&self, rows: &Tensor) -> Result<Tensor> {
        match &self.weight {
            QMatMul::Tensor(weight) | QMatMul::TensorF16(weight) => {
                Ok(weight.index_select(rows, 0)?.to_dtype(DType::F32)?)
            }
            QMatMul::QTensor(_) => Ok(self.weight.embedding(rows)?.to_dtype(DType::F32)?),
        }
    }
}

impl Backend for Candle {
    type Matrix = Tensor;
    type Linear = Linear;
    type Store = HostStore;
    type Watch = Recorder;
    type Pass<'a> = Pass<'a, Self>;
    type Angles = Angles;

    fn name(&self) -> &'static str {
        match &self.device {
            Device::Cpu => "candle-cpu",
            Device::Cuda(_) => "candle-cuda",
            Device::Metal(_) => "candle-metal",
        }
    }

    fn free_bytes(&self) -> Option<u64> {
        host::free_bytes()
    }

    fn matrix(&self, numbers: Vec<f32>, width: usize) -> Result<Tensor> {
        self.tensor(numbers, width)
    }

    fn numbers(&self, x: &Tensor) -> Result<Vec<f32>> {
        self.host(x)
    }

    fn load(&self, weight: Stored, bias: Option<Vec<f32>>, held: WeightType) -> Result<Linear> {
        let shape = weight.matrix()?;
        let weight = match (weight.numbers(), held) {
            (Numbers::Blocks(_), WeightType::Stored) => QMatMul::from_qtensor(weight.blocks(&self.device)?)?,
            _ => QMatMul::Tensor(Tensor::from_vec(weight.dense()?, shape, &self.device)?),
        };
        let bias = bias.map(|bias| Tensor::new(bias.as_slice(), &self.device)).transpose()?;
        Ok(Linear { weight, bias })
    }

    fn bytes(&self, linear: &Linear) -> usize {
        match &linear.weight {
            QMatMul::QTensor(weight) => weight.storage_size_in_bytes(),
            QMatMul::Tensor(weight) | QMatMul::TensorF16(weight) => {
                weight.elem_count() * weight.dtype().size_in_bytes()
            }
        }
    }

    fn embed(&self, table: &Linear, tokens: &[u32]) -> Result<Tensor> {
        table.rows(&Tensor::new(tokens, &self.device)?)
    }

    fn linear<const N: usize>(&self, layers: [&Linear; N], x: &Tensor) -> Result<[Tensor; N]> {
        let x = x.contiguous()?;
        let mut outputs = [const { None }; N];
        for (output, layer) in outputs.iter_mut().zip(layers) {
            let y = layer.weight.forward(&x)?;
            *output = Some(match &layer.bias {
                Some(bias) => y.broadcast_add(bias)?,
                None => y,
            });
        }
        Ok(outputs.map(|output| output.expect("one for each layer")))
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor> {
        let length = weight.elem_count();
        let runs = x.reshape((x.elem_count() / length, length))?.contiguous()?;
        Ok(ops::rms_norm(&runs, &weight.flatten_all()?, epsilon)?.reshape(x.shape())?)
    }

    fn silu_times(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        Ok((ops::silu(gate)? * up)?)
    }

    fn add_linear(&self, a: Tensor, layer: &Linear, x: &Tensor) -> Result<Tensor> {
        let [y] = self.linear([layer], x)?;
        Ok((a + y)?)
    }

    fn angles(&self, angles: Angles) -> Result<Angles> {
        Ok(angles)
    }

    fn rows(&self, x: &Tensor, rows: &[usize]) -> Result<Tensor> {
        let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        Ok(x.index_select(&Tensor::new(rows.as_slice(), &self.device)?, 0)?)
    }

    fn store(&self, layout: HeadLayout, format: Format, tokens: usize) -> Result<HostStore> {
        Ok(HostStore::with_capacity(layout, format, tokens))
    }

    fn watch(&self, layout: HeadLayout, request: ObservationRequest, prompt_len: usize) -> Recorder {
        Recorder::new(request, layout, prompt_len)
    }

    fn watch_replay(&self, layout: HeadLayout, replaying: Replaying) -> Recorder {
        Recorder::of_replay(replaying, layout)
    }

    fn watch_queries(&self, layout: HeadLayout, count: usize) -> Recorder {
        Recorder::of_answer(count, layout)
    }

    fn last_queries(&self, watch: &Recorder, layer: usize) -> Vec<f32> {
        watch.last_queries(layer)
    }

    fn replayed(&self, watch: &mut Recorder, layer: usize) -> Result<Replayed> {
        Ok(watch.replayed(layer))
    }

    fn pass<'a>(&self, layout: HeadLayout, spans: Vec<Span<'a, Self>>) -> Result<Pass<'a, Self>> {
        Ok(Pass::new(layout, spans))
    }

    fn observe(&self, pass: &mut Pass<'_, Self>, layer: usize, observed: Observed<'_, Self>) -> Result<()> {
        let Observed { inputs, queries, values, output } = observed;
        if !pass.is_watched() {
            return Ok(());
        }
        let [inputs, queries, values] = [inputs, queries, values].map(|x| self.host(x));
        pass.observe(layer, [&inputs?, &queries?, &values?], || {
            let rows = match &output.weight {
                QMatMul::QTensor(weight) => weight.shape().dims2()?.0,
                QMatMul::Tensor(weight) | QMatMul::TensorF16(weight) => weight.dim(0)?,
            };
            let weight = output.rows(&Tensor::arange(0, rows as u32, &self.device)?)?;
            Ok((self.host(&weight)?, weight.dim(1)?))
        })
    }

    fn attend(
        &self,
        pass: &mut Pass<'_, Self>,
        layer: Layer,
        projected: Projected<Self>,
        angles: &Angles,
    ) -> Result<Tensor> {
        let width = projected.queries.dim(1)?;
        let [queries, keys, values] = [&projected.queries, &projected.keys, &projected.values].map(|x| self.host(x));
        self.tensor(pass.attend(layer, angles, &mut queries?, &mut keys?, &values?), width)
    }

    fn summaries(&self, _: HeadLayout, watch: &Recorder, prompt: &HostStore, layer: Layer) -> Result<LayerSummaries> {
        Ok(watch.summaries(layer, prompt.view()))
    }

    fn answer(
        &self,
        hidden: &Tensor,
        logits: &Tensor,
        asks: &[(Ask<'_>, usize)],
        answers: &mut Vec<Answer>,
    ) -> Result<()> {
        let (hidden_size, vocabulary) = (hidden.dim(1)?, logits.dim(1)?);
        host::answer((&self.host(hidden)?, hidden_size), (&self.host(logits)?, vocabulary), asks, answers)
    }
}
