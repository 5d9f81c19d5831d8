package observe

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"sluice/gateway/wire"
)

func TestCellsRiseAndHoldEveryBound(t *testing.T) {
	if len(cells) != numCells {
		t.Fatalf("%d cells, and numCells is %d", len(cells), numCells)
	}
	for i := 1; i < len(cells); i++ {
		if cells[i].max <= cells[i-1].max || cells[i].native < cells[i-1].native || cells[i].classic < cells[i-1].classic {
			t.Errorf("cell %d is %+v, after %+v", i, cells[i], cells[i-1])
		}
	}
	for _, bound := range classicBounds {
		ns := int64(math.Round(bound * 1e9))
		if !slices.ContainsFunc(cells, func(c cell) bool { return c.max == ns }) {
			t.Errorf("no cell ends at %v s", bound)
		}
	}
	if got := cells[len(cells)-1].classic; got != len(classicBounds) {
		t.Errorf("the last cell is above %d classic bounds, want all %d", got, len(classicBounds))
	}
}

func TestCellOfFindsEveryEdge(t *testing.T) {
	for i, c := range cells[:len(cells)-1] {
		for d, want := range map[int64]int{c.max - 1: i, c.max: i, c.max + 1: i + 1} {
			if got := cellOf(time.Duration(d)); got != want {
				t.Errorf("cellOf(%d ns) = %d, want %d", d, got, want)
			}
		}
	}
	for d, want := range map[time.Duration]int{
		math.MinInt64: 0, -1: 0, 0: 0, 1: 0, math.MaxInt64: len(cells) - 1, 400 * time.Hour: len(cells) - 1,
	} {
		if got := cellOf(d); got != want {
			t.Errorf("cellOf(%v) = %d, want %d", d, got, want)
		}
	}
}

func FuzzCellOf(f *testing.F) {
	for _, ns := range []int64{math.MinInt64, 0, 7629, 7630, 500_000, 1e9, 1e9 + 1, 1 << 47, math.MaxInt64} {
		f.Add(ns)
	}
	f.Fuzz(func(t *testing.T, ns int64) {
		i := cellOf(time.Duration(ns))
		if ns > cells[i].max || i > 0 && ns <= cells[i-1].max {
			t.Fatalf("%d ns is counted in cell %d, which ends at %d", ns, i, cells[i].max)
		}
	})
}

// The histogram of client_golang, told the same durations, is the oracle for both
// forms.
func TestHistogramAgreesWithClientGolang(t *testing.T) {
	oracle := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "oracle", Buckets: classicBounds,
		NativeHistogramBucketFactor:  1.1,
		NativeHistogramZeroThreshold: math.Exp2(shortestPow2),
	})
	s := newSeries(Key{"r", "n", "b"})
	random := rand.New(rand.NewPCG(1, 2))
	durations := []time.Duration{0, time.Second, 500 * time.Microsecond, 60 * time.Second}
	for range 20000 {
		// From 1 µs to 28 h, as many in each octave.
		durations = append(durations, time.Duration(math.Exp2(10+36.5*random.Float64())))
	}
	for _, d := range durations {
		oracle.Observe(d.Seconds())
		s.End(wire.OK, d)
	}
	got, want := written(t, s.histogram(nil, nil)), written(t, oracle)

	if got.GetSchema() != want.GetSchema() || got.GetZeroThreshold() != want.GetZeroThreshold() {
		t.Fatalf("schema %d, zero to %v; client_golang has %d and %v",
			got.GetSchema(), got.GetZeroThreshold(), want.GetSchema(), want.GetZeroThreshold())
	}
	if got.GetSampleCount() != want.GetSampleCount() || got.GetZeroCount() != want.GetZeroCount() {
		t.Errorf("%d samples, %d at zero; client_golang counts %d and %d",
			got.GetSampleCount(), got.GetZeroCount(), want.GetSampleCount(), want.GetZeroCount())
	}
	if math.Abs(got.GetSampleSum()/want.GetSampleSum()-1) > 1e-6 {
		t.Errorf("sum %v s, client_golang has %v", got.GetSampleSum(), want.GetSampleSum())
	}
	if !maps.Equal(counts(got), counts(want)) {
		t.Errorf("native buckets %v\nclient_golang has %v", counts(got), counts(want))
	}
	for i, b := range want.GetBucket() {
		if g := got.GetBucket()[i]; g.GetUpperBound() != b.GetUpperBound() || g.GetCumulativeCount() != b.GetCumulativeCount() {
			t.Errorf("classic bucket %v, client_golang has %v", g, b)
		}
	}
}

func TestHistogramEndsInOneBucketForWhatIsLonger(t *testing.T) {
	s := newSeries(Key{"r", "n", "b"})
	s.End(wire.OK, 37*time.Hour)
	s.End(wire.OK, math.MaxInt64)
	h := written(t, s.histogram(nil, nil))
	if got := counts(h); !maps.Equal(got, map[int]int64{longestPow2*perOctave + 1: 2}) {
		t.Errorf("native buckets %v, want two in the last", got)
	}
	last := h.GetBucket()[len(h.GetBucket())-1]
	if last.GetCumulativeCount() != 0 || h.GetSampleCount() != 2 {
		t.Errorf("%d of %d up to a minute, want none of two", last.GetCumulativeCount(), h.GetSampleCount())
	}
}

func written(t *testing.T, m prometheus.Metric) *dto.Histogram {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetHistogram()
}
