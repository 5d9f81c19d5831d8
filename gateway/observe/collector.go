package observe

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sluice/gateway/wire"
)

// The metrics of RPCs.
var (
	startedDesc = prometheus.NewDesc("sluice_rpc_started_total",
		"RPCs that were routed to a backend.", []string{"route", "rule", "backend"}, nil)
	endedDesc = prometheus.NewDesc("sluice_rpc_ended_total",
		"RPCs that are over, by the status that the caller got.", []string{"route", "rule", "backend", "code"}, nil)
	openDesc = prometheus.NewDesc("sluice_rpc_open",
		"RPCs that have started and not ended.", []string{"route", "rule", "backend"}, nil)
	secondsDesc = prometheus.NewDesc("sluice_rpc_seconds",
		"Time from the start to the end of RPCs that are over.", []string{"route", "rule", "backend"}, nil)
)

// rpcCollector shows the series of m. It reads them while they count, so a series'
// histogram may be some RPCs behind its counters.
type rpcCollector struct{ m *Metrics }

func (c rpcCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{startedDesc, endedDesc, openDesc, secondsDesc} {
		ch <- d
	}
}

func (c rpcCollector) Collect(ch chan<- prometheus.Metric) {
	list := c.m.all()
	for _, s := range list {
		s.collect(ch)
	}
	c.m.scraped(list)
}

func (s *Series) collect(ch chan<- prometheus.Metric) {
	// As the exporter wants them: in alphabetical order.
	backend, route, rule := label("backend", s.key.Backend), label("route", s.key.Route), label("rule", s.key.Rule)
	labels := []*dto.LabelPair{backend, route, rule}
	made := timestamppb.New(s.made)
	ch <- s.histogram(labels, made)
	started, ended := s.tally()
	for code, n := range ended {
		ch <- counter{endedDesc, []*dto.LabelPair{backend, codeLabels[code], route, rule}, n, made}
	}
	ch <- counter{startedDesc, labels, started, made}
	ch <- gauge{openDesc, labels, started - ended.total()}
}

// codeLabels are shared by all series.
var codeLabels = func() (all [wire.NumCodes]*dto.LabelPair) {
	for code := range all {
		all[code] = label("code", wire.Code(code).Label())
	}
	return all
}()

func label(name, value string) *dto.LabelPair {
	return &dto.LabelPair{Name: proto.String(name), Value: proto.String(value)}
}

// counter is one figure of a series that only grows.
type counter struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	value  uint64
	made   *timestamppb.Timestamp
}

func (c counter) Desc() *prometheus.Desc { return c.desc }

func (c counter) Write(out *dto.Metric) error {
	out.Label = c.labels
	out.Counter = &dto.Counter{Value: proto.Float64(float64(c.value)), CreatedTimestamp: c.made}
	return nil
}

// gauge is one figure of a series that comes and goes.
type gauge struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	value  uint64
}

func (g gauge) Desc() *prometheus.Desc { return g.desc }

func (g gauge) Write(out *dto.Metric) error {
	out.Label = g.labels
	out.Gauge = &dto.Gauge{Value: proto.Float64(float64(g.value))}
	return nil
}

// histogram is a copy of a series' durations.
type histogram struct {
	labels []*dto.LabelPair
	made   *timestamppb.Timestamp
	counts []uint64 // by cell
	micros uint64
}

func (s *Series) histogram(labels []*dto.LabelPair, made *timestamppb.Timestamp) histogram {
	h := histogram{labels: labels, made: made, counts: make([]uint64, numCells)}
	if cells := s.cells.Load(); cells != nil {
		for i := range cells {
			h.counts[i] = cells[i].Load()
		}
	}
	h.micros = s.micros.Load()
	return h
}

func (h histogram) Desc() *prometheus.Desc { return secondsDesc }

// Write shows both histograms in one; a scraper takes the one that it knows.
func (h histogram) Write(out *dto.Metric) error {
	total := uint64(0)
	for _, n := range h.counts {
		total += n
	}
	const microsPerSecond = 1e6
	out.Label = h.labels
	out.Histogram = &dto.Histogram{
		SampleCount:      proto.Uint64(total),
		SampleSum:        proto.Float64(float64(h.micros) / microsPerSecond),
		CreatedTimestamp: h.made,
		Bucket:           h.classic(),

		Schema:        proto.Int32(schema),
		ZeroThreshold: proto.Float64(math.Exp2(shortestPow2)),
		ZeroCount:     proto.Uint64(h.counts[0]),
	}
	out.Histogram.PositiveSpan, out.Histogram.PositiveDelta = h.native()
	return nil
}

// classic is the number of RPCs up to each of classicBounds.
func (h histogram) classic() []*dto.Bucket {
	buckets := make([]*dto.Bucket, len(classicBounds))
	for i, bound := range classicBounds {
		buckets[i] = &dto.Bucket{UpperBound: proto.Float64(bound), CumulativeCount: new(uint64)}
	}
	for i, n := range h.counts {
		if above := cells[i].classic; above < len(buckets) {
			*buckets[above].CumulativeCount += n
		}
	}
	for i := 1; i < len(buckets); i++ {
		*buckets[i].CumulativeCount += *buckets[i-1].CumulativeCount
	}
	return buckets
}

// native is the buckets that hold something, as Prometheus lays them out: spans of
// consecutive ones, and each one's difference from the one before. The zero bucket
// is not among them.
func (h histogram) native() (spans []*dto.BucketSpan, deltas []int64) {
	next, last := 0, int64(0) // index behind the last bucket, and its count
	for i := 1; i < len(h.counts); {
		index, n := cells[i].native, int64(0)
		for ; i < len(h.counts) && cells[i].native == index; i++ {
			n += int64(h.counts[i])
		}
		if n == 0 {
			continue
		}
		if len(spans) == 0 || index != next {
			spans = append(spans, &dto.BucketSpan{Offset: proto.Int32(int32(index - next)), Length: new(uint32)})
		}
		*spans[len(spans)-1].Length++
		deltas = append(deltas, n-last)
		next, last = index+1, n
	}
	return spans, deltas
}
