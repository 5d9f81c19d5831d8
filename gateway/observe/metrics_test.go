package observe

import (
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"sluice/gateway/wire"
)

func TestMetricsShowEverythingAtZero(t *testing.T) {
	m := New()
	m.Use(Key{"default/cart", "n", "default/cart-v1"})
	page := scrapeText(t, m)
	for code := wire.Code(0); code < wire.NumCodes; code++ {
		wantLine(t, page, `sluice_rpc_ended_total{backend="default/cart-v1",code="`+code.Label()+`",route="default/cart",rule="n"} 0`)
	}
	for _, line := range []string{
		`sluice_rpc_started_total{backend="default/cart-v1",route="default/cart",rule="n"} 0`,
		`sluice_rpc_open{backend="default/cart-v1",route="default/cart",rule="n"} 0`,
		`sluice_rpc_seconds_bucket{backend="default/cart-v1",route="default/cart",rule="n",le="0.0005"} 0`,
		`sluice_rpc_seconds_bucket{backend="default/cart-v1",route="default/cart",rule="n",le="+Inf"} 0`,
		`sluice_rpc_seconds_count{backend="default/cart-v1",route="default/cart",rule="n"} 0`,
		`sluice_rpc_seconds_sum{backend="default/cart-v1",route="default/cart",rule="n"} 0`,
	} {
		wantLine(t, page, line)
	}
	for _, name := range []string{"go_goroutines", "process_start_time_seconds"} {
		if !strings.Contains(page, "\n"+name+" ") {
			t.Errorf("no %s on the page", name)
		}
	}
}

func TestMetricsShowClassicHistogramInText(t *testing.T) {
	m := New()
	s := m.Use(Key{"r", "n", "b"})
	for range 4 {
		s.Start()
	}
	s.End(wire.OK, 100*time.Millisecond) // on a bound: belongs to it
	s.End(wire.OK, 100*time.Millisecond+1)
	s.End(wire.Unavailable, 2*time.Minute)
	page := scrapeText(t, m)
	for _, line := range []string{
		`sluice_rpc_started_total{backend="b",route="r",rule="n"} 4`,
		`sluice_rpc_open{backend="b",route="r",rule="n"} 1`,
		`sluice_rpc_ended_total{backend="b",code="OK",route="r",rule="n"} 2`,
		`sluice_rpc_ended_total{backend="b",code="UNAVAILABLE",route="r",rule="n"} 1`,
		`sluice_rpc_seconds_bucket{backend="b",route="r",rule="n",le="0.05"} 0`,
		`sluice_rpc_seconds_bucket{backend="b",route="r",rule="n",le="0.1"} 1`,
		`sluice_rpc_seconds_bucket{backend="b",route="r",rule="n",le="0.25"} 2`,
		`sluice_rpc_seconds_bucket{backend="b",route="r",rule="n",le="60"} 2`,
		`sluice_rpc_seconds_bucket{backend="b",route="r",rule="n",le="+Inf"} 3`,
		`sluice_rpc_seconds_count{backend="b",route="r",rule="n"} 3`,
		`sluice_rpc_seconds_sum{backend="b",route="r",rule="n"} 120.2`,
	} {
		wantLine(t, page, line)
	}
}

func TestMetricsShowBothHistogramsInProtobuf(t *testing.T) {
	m := New()
	s := m.Use(Key{"r", "n", "b"})
	for _, d := range []time.Duration{time.Microsecond, time.Second, time.Second, time.Second + 1, 10 * time.Second} {
		s.Start()
		s.End(wire.OK, d)
	}
	m.Use(Key{"r", "n", "idle"})

	family := scrape(t, m, acceptProtobuf)["sluice_rpc_seconds"]
	if family.GetType() != dto.MetricType_HISTOGRAM || len(family.GetMetric()) != 2 {
		t.Fatalf("got %v", family)
	}
	h := family.GetMetric()[0].GetHistogram()
	if h.GetSchema() != schema || h.GetZeroThreshold() != math.Exp2(-17) || h.GetZeroCount() != 1 || h.GetSampleCount() != 5 {
		t.Errorf("schema %d, %d up to %v s, %d in all; want 3, 1, 2^-17, 5",
			h.GetSchema(), h.GetZeroCount(), h.GetZeroThreshold(), h.GetSampleCount())
	}
	// 2^(0/8) is the second itself; log2(10)*8 is 26.6.
	if got, want := counts(h), (map[int]int64{0: 2, 1: 1, 27: 1}); !maps.Equal(got, want) {
		t.Errorf("native buckets %v, want %v", got, want)
	}
	if n := len(h.GetBucket()); n != len(classicBounds) {
		t.Errorf("%d classic buckets, want %d", n, len(classicBounds))
	}
	if h.GetCreatedTimestamp().AsTime().IsZero() {
		t.Error("no time of creation")
	}
	// A scraper tells a native histogram without samples by its zero bucket.
	idle := family.GetMetric()[1].GetHistogram()
	if idle.GetSampleCount() != 0 || idle.GetZeroThreshold() == 0 || idle.Schema == nil {
		t.Errorf("without samples: %v", idle)
	}
}

func TestMetricsKeepOneSeriesPerKey(t *testing.T) {
	m := New()
	s := m.Use(Key{"r", "n", "b"})
	if s.Key() != (Key{"r", "n", "b"}) {
		t.Errorf("the series counts %v", s.Key())
	}
	if m.Use(Key{"r", "n", "b"}) != s {
		t.Error("asked again, there is another series")
	}
	if m.Use(Key{"r", "n", "c"}) == s || m.Use(Key{"b", "n", "r"}) == s {
		t.Error("two keys have one series")
	}
	if got, want := keys(m), []Key{{"b", "n", "r"}, {"r", "n", "b"}, {"r", "n", "c"}}; !slices.Equal(got, want) {
		t.Errorf("series %v, want %v", got, want)
	}
}

func TestMetricsDropWhatNoRuleHas(t *testing.T) {
	kept, gone := Key{"r", "n", "kept"}, Key{"r", "n", "gone"}
	begin := func(_ *Metrics, s *Series) { s.Start() }
	end := func(_ *Metrics, s *Series) { s.End(wire.OK, 0) }
	scraped := func(m *Metrics, _ *Series) {
		rec := httptest.NewRecorder()
		m.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	}
	release := func(m *Metrics, s *Series) { m.Release(s) }
	again := func(m *Metrics, s *Series) { m.Use(s.key) }
	minutes := func(n int) func(*Metrics, *Series) {
		return func(m *Metrics, _ *Series) {
			for range n * int(time.Minute/sampleEvery) {
				m.sample()
			}
		}
	}

	for _, tc := range []struct {
		name  string
		steps []func(*Metrics, *Series)
		want  bool // the series is still there
	}{
		{"until a scrape has seen it retired", []func(*Metrics, *Series){release, minutes(4)}, true},
		{"after that scrape", []func(*Metrics, *Series){release, scraped}, false},
		{"without scrapes, after minutes", []func(*Metrics, *Series){release, minutes(5)}, false},
		{"not while RPCs are open", []func(*Metrics, *Series){begin, release, scraped, minutes(6), scraped}, true},
		{"not before their end was scraped", []func(*Metrics, *Series){release, begin, end, scraped}, true},
		{"after their end was scraped", []func(*Metrics, *Series){release, begin, end, scraped, scraped}, false},
		{"not when a rule has it again", []func(*Metrics, *Series){release, again, scraped, scraped, minutes(6)}, true},
		{"not when another rule has it still", []func(*Metrics, *Series){again, release, scraped, scraped, minutes(6)}, true},
		{"after all have released it", []func(*Metrics, *Series){again, release, release, scraped}, false},
		{"not when nothing was retired", []func(*Metrics, *Series){scraped, scraped, minutes(6)}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := New()
			m.Use(kept)
			s := m.Use(gone)
			for _, step := range tc.steps {
				step(m, s)
			}
			if got := slices.Contains(keys(m), gone); got != tc.want {
				t.Errorf("series is there: %v, want %v", got, tc.want)
			}
			if !slices.Contains(keys(m), kept) {
				t.Error("the series that the table has is gone")
			}
			if got, want := len(m.retired), len(m.series)-1; got > want {
				t.Errorf("%d series are retired, want %d at most", got, want)
			}
		})
	}
}

// A series that was dropped and came back is another one; a scrape that began
// before must not drop it.
func TestMetricsScrapeSparesWhatCameBack(t *testing.T) {
	m := New()
	first := m.Use(Key{"r", "n", "b"})
	list := m.all()
	m.Release(first)
	m.scraped(list)
	m.Release(m.Use(Key{"r", "n", "b"}))
	m.scraped(list)
	if got := keys(m); len(got) != 1 {
		t.Errorf("series %v, want the new one", got)
	}
}

func TestMetricsAskOtherParts(t *testing.T) {
	m := New()
	m.CounterFunc("sluice_h2_pings_total", "PINGs.", map[string]string{"side": "client"}, func() float64 { return 3 })
	m.CounterFunc("sluice_h2_pings_total", "PINGs.", map[string]string{"side": "upstream"}, func() float64 { return 4 })
	m.GaugeFunc("sluice_conn_open", "Connections.", nil, func() float64 { return 5 })
	m.CounterVecFunc("sluice_upstream_dials_total", "Dials.", []string{"backend", "result"}, func(emit Emit) {
		emit(6, "b", "ok")
		emit(7, "b", "refused")
	})
	m.GaugeVecFunc("sluice_upstream_endpoints", "Endpoints.", []string{"backend"}, func(emit Emit) { emit(8, "b") })
	page := scrapeText(t, m)
	for _, line := range []string{
		"# TYPE sluice_h2_pings_total counter",
		`sluice_h2_pings_total{side="client"} 3`,
		`sluice_h2_pings_total{side="upstream"} 4`,
		"# TYPE sluice_conn_open gauge",
		"sluice_conn_open 5",
		"# TYPE sluice_upstream_dials_total counter",
		`sluice_upstream_dials_total{backend="b",result="ok"} 6`,
		`sluice_upstream_dials_total{backend="b",result="refused"} 7`,
		"# TYPE sluice_upstream_endpoints gauge",
		`sluice_upstream_endpoints{backend="b"} 8`,
	} {
		wantLine(t, page, line)
	}
}

// One part that emits nonsense costs its own metric, and is counted, not the page.
func TestMetricsOutliveABadPart(t *testing.T) {
	m := New()
	m.Use(Key{"r", "n", "b"})
	m.GaugeVecFunc("sluice_bad", "Bad.", []string{"one"}, func(emit Emit) { emit(1, "two", "three") })
	server := serve(t, m)
	get(t, server, acceptText)
	family := scrape(t, m, acceptText)
	if family["sluice_bad"] != nil || family["sluice_rpc_open"] == nil {
		t.Errorf("bad metric there: %v, good one there: %v", family["sluice_bad"] != nil, family["sluice_rpc_open"] != nil)
	}
	wantLine(t, scrapeText(t, m), `promhttp_metric_handler_errors_total{cause="gathering"} 2`)
}

func TestMetricsRefuseANameTwice(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a name was registered twice")
		}
	}()
	m := New()
	m.GaugeFunc("sluice_conn_open", "Connections.", nil, func() float64 { return 0 })
	m.GaugeFunc("sluice_conn_open", "Connections.", nil, func() float64 { return 0 })
}

func keys(m *Metrics) []Key {
	var list []Key
	m.Each(func(s *Series) { list = append(list, s.Key()) })
	return list
}

func wantLine(t *testing.T, page, line string) {
	t.Helper()
	if !strings.Contains("\n"+page, "\n"+line+"\n") {
		t.Errorf("no line %s", line)
	}
}
