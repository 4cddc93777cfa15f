//! What a network costs, read off its operators.

use super::model::{Constant, Kind, Model};
use std::collections::BTreeSet;

/// Learned values, and multiply-accumulates of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkCost {
    /// Constants that the operators compute with; those of sparse weights that are zero count.
    pub parameters: u64,
    /// Products of the convolutions, each added to a sum.
    pub macs: u64,
}

impl Model {
    /// Counts the values and the products of the network.
    pub fn cost(&self) -> NetworkCost {
        let mut constants = BTreeSet::new();
        let mut macs = 0;
        for operator in &self.operators {
            let is_learned = |input: &&usize| matches!(self.tensors[**input].constant, Constant::Float(_));
            constants.extend(operator.inputs.iter().filter(is_learned).copied());
            if let (Kind::Conv(_) | Kind::Depthwise(_), Some(&weights)) = (&operator.kind, operator.inputs.get(1)) {
                let output = &self.tensors[operator.output];
                let channels = output.shape.last().copied().unwrap_or(1).max(1);
                // Every position of the output meets every weight once.
                macs += (output.count() / channels * self.tensors[weights].count()) as u64;
            }
        }
        let parameters = constants.iter().map(|tensor| self.tensors[*tensor].count() as u64).sum();
        NetworkCost { parameters, macs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tflite::model::{Operator, Padding, Tensor, Window};

    #[test]
    fn a_small_network_counted_by_hand() {
        let input = |shape: &[usize]| Tensor { shape: shape.to_vec(), constant: Constant::None };
        let learned = |shape: &[usize]| Tensor {
            shape: shape.to_vec(),
            constant: Constant::Float(vec![0.0; shape.iter().product()]),
        };
        let window = || Window { padding: Padding::Same, stride: [1, 1], clamp: None };
        let model = Model {
            name: "small".into(),
            // 4 x 5 pixels, 2 channels, to 3 channels by 3 x 3, then each channel by 2 x 2.
            tensors: vec![
                input(&[1, 4, 5, 2]),
                learned(&[3, 3, 3, 2]),
                learned(&[3]),
                input(&[1, 4, 5, 3]),
                learned(&[1, 2, 2, 3]),
                input(&[1, 4, 5, 3]),
            ],
            operators: vec![
                Operator { kind: Kind::Conv(window()), inputs: vec![0, 1, 2], output: 3 },
                Operator { kind: Kind::Depthwise(window()), inputs: vec![3, 4, 2], output: 5 },
            ],
            inputs: vec![0],
            outputs: vec![5],
        };
        // The bias of three values is shared.
        assert_eq!(model.cost(), NetworkCost { parameters: 54 + 3 + 12, macs: 20 * 54 + 20 * 12 });
    }
}
