//! The processor, with our own kernels.

mod linear;
#[cfg(any(feature = "mkl", feature = "accelerate"))]
mod vendor;

use cokv_core::{Format, HeadLayout, ObservationRequest, Replayed};

pub use self::linear::Linear;
use super::host::{self, HostStore, Pass, Recorder};
use super::{Backend, Layer, LayerSummaries, Observed, Projected, Replaying, Result, Span};
use crate::ask::{Answer, Ask};
use crate::kernel::elementwise;
use crate::kernel::simd::Registers;
use crate::rope::Angles;
use crate::weights::{Stored, WeightType};

/// The processor. Results have the same bits for any number of threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu;

/// `[rows, width]` numbers, row-major.
pub struct Matrix {
    numbers: Vec<f32>,
    width: usize,
}

impl Backend for Cpu {
    type Matrix = Matrix;
    type Linear = Linear;
    type Store = HostStore;
    type Watch = Recorder;
    type Pass<'a> = Pass<'a, Self>;
    type Angles = Angles;

    fn name(&self) -> &'static str {
        let tiles = Registers::widest() == Registers::Amx;
        match (cfg!(feature = "mkl"), cfg!(feature = "accelerate"), tiles) {
            (true, _, true) => "cpu-mkl-amx",
            (true, _, false) => "cpu-mkl",
            (_, true, _) => "cpu-accelerate",
            (_, _, true) => "cpu-amx",
            _ => "cpu",
        }
    }

    fn free_bytes(&self) -> Option<u64> {
        host::free_bytes()
    }

    fn matrix(&self, numbers: Vec<f32>, width: usize) -> Result<Matrix> {
        Ok(Matrix { numbers, width })
    }

    fn numbers(&self, x: &Matrix) -> Result<Vec<f32>> {
        Ok(x.numbers.clone())
    }

    fn load(&self, weight: Stored, bias: Option<Vec<f32>>, held: WeightType) -> Result<Linear> {
        Linear::new(weight, bias, held)
    }

    fn bytes(&self, linear: &Linear) -> usize {
        linear.bytes()
    }

    fn embed(&self, table: &Linear, tokens: &[u32]) -> Result<Matrix> {
        let numbers = table.rows(tokens.iter().map(|&token| token as usize))?;
        Ok(Matrix { numbers, width: table.in_features() })
    }

    fn linear<const N: usize>(&self, layers: [&Linear; N], x: &Matrix) -> Result<[Matrix; N]> {
        let mut rounded = None;
        let mut outputs = [const { None }; N];
        for (output, layer) in outputs.iter_mut().zip(layers) {
            let numbers = layer.forward(&x.numbers, &mut rounded)?;
            *output = Some(Matrix { numbers, width: layer.out_features() });
        }
        Ok(outputs.map(|output| output.expect("one for each layer")))
    }

    fn rms_norm(&self, x: &Matrix, weight: &Matrix, epsilon: f32) -> Result<Matrix> {
        Ok(Matrix { numbers: elementwise::rms_norm(&x.numbers, &weight.numbers, epsilon), width: x.width })
    }

    fn silu_times(&self, gate: &Matrix, up: &Matrix) -> Result<Matrix> {
        Ok(Matrix { numbers: elementwise::silu_times(&gate.numbers, &up.numbers), width: gate.width })
    }

    fn add_linear(&self, a: Matrix, layer: &Linear, x: &Matrix) -> Result<Matrix> {
        let [y] = self.linear([layer], x)?;
        Ok(Matrix { numbers: elementwise::add(&a.numbers, &y.numbers), width: a.width })
    }

    fn angles(&self, angles: Angles) -> Result<Angles> {
        Ok(angles)
    }

    fn rows(&self, x: &Matrix, rows: &[usize]) -> Result<Matrix> {
        let row = |&row: &usize| &x.numbers[row * x.width..(row + 1) * x.width];
        Ok(Matrix { numbers: rows.iter().flat_map(row).copied().collect(), width: x.width })
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

    fn pass<'a>(&self, layout: HeadLayout, spans: Vec<Span<'a, Self>>) -> Result<Pass<'a, Self>> {
        Ok(Pass::new(layout, spans))
    }

    fn observe(&self, pass: &mut Pass<'_, Self>, layer: usize, observed: Observed<'_, Self>) -> Result<()> {
        let Observed { inputs, queries, values, output } = observed;
        pass.observe(layer, [inputs, queries, values].map(|x| &x.numbers[..]), || {
            Ok((output.rows(0..output.out_features())?, output.in_features()))
        })
    }

    fn replayed(&self, watch: &mut Recorder, layer: usize) -> Result<Replayed> {
        Ok(watch.replayed(layer))
    }

    fn attend(
        &self,
        pass: &mut Pass<'_, Self>,
        layer: Layer,
        projected: Projected<Self>,
        angles: &Angles,
    ) -> Result<Matrix> {
        let Projected { mut queries, mut keys, values } = projected;
        let numbers = pass.attend(layer, angles, &mut queries.numbers, &mut keys.numbers, &values.numbers);
        Ok(Matrix { numbers, width: queries.width })
    }

    fn summaries(&self, _: HeadLayout, watch: &Recorder, prompt: &HostStore, layer: Layer) -> Result<LayerSummaries> {
        Ok(watch.summaries(layer, prompt.view()))
    }

    fn answer(
        &self,
        hidden: &Matrix,
        logits: &Matrix,
        asks: &[(Ask<'_>, usize)],
        answers: &mut Vec<Answer>,
    ) -> Result<()> {
        host::answer((&hidden.numbers, hidden.width), (&logits.numbers, logits.width), asks, answers)
    }
}
