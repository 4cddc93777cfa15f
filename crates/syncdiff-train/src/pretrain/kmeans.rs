//! K-means, the same for the same rows and seed.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use syncdiff_model::weights::StoredTensor;

/// Most rows that are looked at to find centres.
const SAMPLE: usize = 20_000;
/// Lloyd's iterations.
const ITERATIONS: usize = 25;
/// Sums that run side by side.
const LANES: usize = 8;

/// Rows of equal width.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rows {
    pub(super) width: usize,
    pub(super) values: Vec<f32>,
}

impl Rows {
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.width)
    }

    pub(super) fn len(&self) -> usize {
        self.values.len() / self.width
    }

    fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..][..self.width]
    }

    /// At most so many, spread evenly.
    fn at_most(&self, count: usize) -> Self {
        let (len, width) = (self.len(), self.width);
        if len <= count {
            return self.clone();
        }
        Self { width, values: (0..count).flat_map(|i| self.row(i * len / count)).copied().collect() }
    }
}

/// Centres of clusters, and what rows are scaled by before they are compared with them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Centres {
    mean: Vec<f32>,
    deviation: Vec<f32>,
    centres: Rows,
}

impl Centres {
    /// Finds `count` centres: the first `own` columns are brought to unit variance, and of those behind them each as
    /// many again are scaled alike, so that a column and its differences keep their proportion; the first centres are
    /// drawn as by k-means++ (Arthur and Vassilvitskii 2007), then a fixed number of Lloyd's iterations. A cluster that
    /// no row belongs to is moved to the row that lies farthest from its own.
    ///
    /// # Panics
    /// With fewer rows than centres, or none wanted.
    pub(super) fn find(rows: &Rows, own: usize, count: usize, seed: u64) -> Self {
        assert!((1..=rows.len()).contains(&count), "{count} centres of {} rows", rows.len());
        let (mean, mut deviation) = moments(rows);
        (own..rows.width).for_each(|column| deviation[column] = deviation[column - own]);
        let width = rows.width;
        let mut found = Self { mean, deviation, centres: Rows { width, values: Vec::new() } };
        let sample = rows.at_most(SAMPLE.max(count));
        let sample = Rows { width, values: sample.iter().flat_map(|row| found.scaled(row)).collect() };
        found.centres = first_centres(&sample, count, seed);
        for _ in 0..ITERATIONS {
            found.improve(&sample);
        }
        found
    }

    fn scaled(&self, row: &[f32]) -> Vec<f32> {
        row.iter().zip(&self.mean).zip(&self.deviation).map(|((value, mean), scale)| (value - mean) / scale).collect()
    }

    /// The nearest centre of a scaled row, and how far it is: the first of those equally near.
    fn nearest(&self, row: &[f32]) -> (usize, f32) {
        let mut best = (0, f32::INFINITY);
        for (number, centre) in self.centres.iter().enumerate() {
            let far = distance(row, centre);
            if far < best.1 {
                best = (number, far);
            }
        }
        best
    }

    /// One of Lloyd's iterations.
    fn improve(&mut self, sample: &Rows) {
        let (count, width) = (self.centres.len(), sample.width);
        let (mut sums, mut sizes) = (vec![0f64; count * width], vec![0u32; count]);
        let mut distances = Vec::with_capacity(sample.len());
        for row in sample.iter() {
            let (cluster, far) = self.nearest(row);
            distances.push(far);
            sizes[cluster] += 1;
            sums[cluster * width..][..width].iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        for (cluster, size) in sizes.into_iter().enumerate() {
            let centre = &mut self.centres.values[cluster * width..][..width];
            if size > 0 {
                let sums = &sums[cluster * width..][..width];
                centre.iter_mut().zip(sums).for_each(|(value, sum)| *value = (sum / f64::from(size)) as f32);
                continue;
            }
            let farthest = (0..distances.len()).max_by(|a, b| distances[*a].total_cmp(&distances[*b]));
            if let Some(row) = farthest {
                centre.copy_from_slice(sample.row(row));
                distances[row] = 0.0;
            }
        }
    }

    /// Name and tensor of each part, for a file.
    pub(super) fn tensors(&self) -> [(&'static str, StoredTensor); 3] {
        let width = self.mean.len();
        [
            ("mean", StoredTensor::from_f32(&[width], &self.mean)),
            ("deviation", StoredTensor::from_f32(&[width], &self.deviation)),
            ("centres", StoredTensor::from_f32(&[self.centres.len(), width], &self.centres.values)),
        ]
    }

    /// The cluster of each row.
    pub(super) fn of(&self, rows: &Rows) -> Vec<u16> {
        rows.iter().map(|row| self.nearest(&self.scaled(row)).0 as u16).collect()
    }
}

/// Mean and deviation of every column; a column of equal values is left as it is.
fn moments(rows: &Rows) -> (Vec<f32>, Vec<f32>) {
    let count = rows.len() as f64;
    let mut mean = vec![0f64; rows.width];
    for row in rows.iter() {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value) / count);
    }
    let mut variance = vec![0f64; rows.width];
    for row in rows.iter() {
        let squares = row.iter().zip(&mean).map(|(value, mean)| (f64::from(*value) - mean).powi(2));
        variance.iter_mut().zip(squares).for_each(|(sum, square)| *sum += square / count);
    }
    let deviation = variance.iter().map(|v| if *v > 1e-12 { v.sqrt() as f32 } else { 1.0 });
    (mean.iter().map(|v| *v as f32).collect(), deviation.collect())
}

/// The square of the distance.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let (wide_a, rest_a) = a.as_chunks::<LANES>();
    let (wide_b, rest_b) = b.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for (a, b) in wide_a.iter().zip(wide_b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += (a - b).powi(2);
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(a, b)| (a - b).powi(2)).sum();
    sums.iter().sum::<f32>() + rest
}

/// Rows drawn one after the other, each as likely as the square of its distance from those already drawn.
fn first_centres(sample: &Rows, count: usize, seed: u64) -> Rows {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut chosen = random.random_range(0..sample.len());
    let mut nearest = vec![f32::INFINITY; sample.len()];
    let mut values = Vec::with_capacity(count * sample.width);
    for _ in 0..count {
        let centre = sample.row(chosen);
        values.extend_from_slice(centre);
        nearest.iter_mut().zip(sample.iter()).for_each(|(near, row)| *near = near.min(distance(row, centre)));
        let total: f64 = nearest.iter().map(|near| f64::from(*near)).sum();
        let mut left = random.random::<f64>() * total;
        let reaches = |near: &f32| {
            left -= f64::from(*near);
            left < 0.0
        };
        // Where all rows are centres already, nothing is left to be drawn: the last one again.
        chosen = nearest.iter().position(reaches).unwrap_or(sample.len() - 1);
    }
    Rows { width: sample.width, values }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAPS: [[f32; 3]; 4] = [[0.0, 0.0, 5.0], [9.0, 0.0, 5.0], [0.0, 200.0, 5.0], [9.0, 200.0, 5.0]];

    /// Rows round four places; the second column has another scale, the third says nothing.
    fn heaps(rows: usize) -> Rows {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut near = |place: [f32; 3]| {
            let [a, b] = [0.3, 6.0].map(|most| random.random_range(-most..most));
            [place[0] + a, place[1] + b, place[2]]
        };
        Rows { width: 3, values: (0..rows).flat_map(|i| near(HEAPS[i % 4])).collect() }
    }

    #[test]
    fn heaps_far_apart_are_found() {
        let rows = heaps(400);
        for seed in 0..5 {
            let centres = Centres::find(&rows, 3, 4, seed);
            let labels = centres.of(&rows);
            for (i, label) in labels.iter().enumerate() {
                assert_eq!(*label, labels[i % 4], "row {i}, seed {seed}");
            }
            let mut four = labels[..4].to_vec();
            four.sort_unstable();
            assert_eq!(four, [0, 1, 2, 3]);
            let exact = Rows { width: 3, values: HEAPS.concat() };
            assert_eq!(centres.of(&exact), labels[..4]);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_centres() {
        let rows = heaps(300);
        assert_eq!(Centres::find(&rows, 3, 9, 3), Centres::find(&rows, 3, 9, 3));
        assert_ne!(Centres::find(&rows, 3, 9, 3).centres, Centres::find(&rows, 3, 9, 4).centres);
    }

    #[test]
    fn equal_rows_and_as_many_centres_as_rows() {
        let equal = Rows { width: 2, values: vec![1.0; 12] };
        assert_eq!(Centres::find(&equal, 2, 3, 0).of(&equal), [0; 6]);
        let few = heaps(4);
        let mut labels = Centres::find(&few, 3, 4, 0).of(&few);
        labels.sort_unstable();
        assert_eq!(labels, [0, 1, 2, 3]);
    }

    /// A column that changes little beside the one that it is scaled by does not tell clusters apart.
    #[test]
    fn differences_keep_their_proportion() {
        let row = |i: usize| [if i < 20 { 0.0 } else { 10.0 }, if i.is_multiple_of(2) { 0.1 } else { -0.1 }];
        let rows = Rows { width: 2, values: (0..40).flat_map(row).collect() };
        let labels = Centres::find(&rows, 1, 2, 0).of(&rows);
        assert!((0..40).all(|i| labels[i] == labels[i / 20 * 20]) && labels[0] != labels[39]);
        let four = Centres::find(&rows, 2, 4, 0).of(&rows);
        assert!((0..40).all(|i| four[i] == four[i / 20 * 20 + i % 2]) && four[0] != four[1]);
    }

    #[test]
    fn of_many_rows_some_are_looked_at() {
        let rows = Rows { width: 1, values: (0..10).map(|v| v as f32).collect() };
        assert_eq!(rows.at_most(5).values, [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(rows.at_most(10), rows);
    }
}
