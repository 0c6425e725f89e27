use super::*;
use crate::cpu::simd::{InstructionSet, Kernel, LANES};

/// Decodes one block.
struct Decode<'a>(QuantType, &'a [u8]);

impl Kernel for Decode<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<f32> {
        struct Typed<'a, I>(I, &'a [u8]);
        impl<I: Isa> FormatKernel for Typed<'_, I> {
            type Output = Vec<f32>;
            #[inline(always)]
            fn run<F: Format>(self) -> Vec<f32> {
                let Typed(isa, block) = self;
                let head = F::head(isa, block);
                let mut out = Vec::new();
                for j in 0..F::SPANS {
                    for x in F::span(isa, block, &head, j) {
                        let mut lanes = [0.0; LANES];
                        isa.store(x, &mut lanes);
                        out.extend(lanes);
                    }
                }
                out
            }
        }
        with_format(self.0, Typed(isa, self.1))
    }
}

#[test]
fn every_type_decodes_as_the_table_says() {
    let mut random = crate::cpu::tests::Random::new(1);
    for quant in QuantType::all() {
        let len = quant.block_len().max(32);
        for _ in 0..300 {
            let block: Vec<u8> = (0..quant.row_bytes(len)).map(|_| random.byte()).collect();
            let mut want = vec![0.0; len];
            quant.decode(&block, &mut want);
            for isa in InstructionSet::present() {
                let got = isa.run(Decode(quant, &block));
                for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                    // Zeros may differ in sign, what is no number in its bits.
                    let same = got == want || got.is_nan() && want.is_nan();
                    let (isa, name) = (isa.name(), quant.name());
                    assert!(same, "{isa} {name} weight {i}: {got} instead of {want}");
                }
            }
        }
    }
}
