package observe

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxScrapes bounds the scrapes that are answered at a time; of those beyond, each
// gets a 503. A table of 10,000 routes makes a page of tens of megabytes.
const maxScrapes = 4

// Metrics is all that one gateway tells of itself. It has a registry of its own,
// so that several gateways may live in one process.
type Metrics struct {
	registry *prometheus.Registry

	mu     sync.Mutex // guards series and what each Series says it guards; not taken per RPC
	series map[Key]*Series
}

// mutexWait adds how long goroutines have waited for locks, which for a relay is
// the figure that says whether it will scale to more cores.
var mutexWait = collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/sync/mutex/wait/total:seconds$`)}

// New makes the metrics of a gateway, with those of the Go runtime and of the
// process.
func New() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), series: make(map[Key]*Series)}
	m.registry.MustRegister(
		rpcCollector{m},
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(mutexWait)),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Handler answers scrapes, in text or in protobuf as the scraper asks; only
// protobuf carries native histograms. A metric that cannot be read is left out,
// and counted, rather than all with it.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		Registry:            m.registry, // counts there what could not be read
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
	})
}

// Series is the series of a route and a backend, made when there is none yet: the
// same for the same names until Retain drops it. It takes a lock: ask when a table
// is compiled, not for each RPC.
func (m *Metrics) Series(route, backend string) *Series {
	key := Key{Route: route, Backend: backend}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.series[key]
	if s == nil {
		s = newSeries(key)
		m.series[key] = s
	}
	s.retired = false
	return s
}

// Retain retires every series that is not in keys: those of a new table, once it
// routes. A retired series is shown until it has no open RPC and a scrape has
// carried its last figures, or until the second Retain that finds it at rest;
// then it is dropped. So nothing is lost of an RPC that was routed by the table
// before.
func (m *Metrics) Retain(keys []Key) {
	keep := make(map[Key]bool, len(keys))
	for _, k := range keys {
		keep[k] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, s := range m.series {
		switch {
		case keep[key]:
		case s.retired:
			m.dropAtRest(s)
		default:
			s.retired, s.seen = true, s.Started()
		}
	}
}

// dropAtRest drops a retired series that has had no RPC since it was last looked
// at. The caller holds mu.
func (m *Metrics) dropAtRest(s *Series) {
	started := s.Started()
	if s.Open() == 0 && started == s.seen {
		delete(m.series, s.key)
	}
	s.seen = started
}

// all is every series, by route and backend.
func (m *Metrics) all() []*Series {
	m.mu.Lock()
	list := make([]*Series, 0, len(m.series))
	for _, s := range m.series {
		list = append(list, s)
	}
	m.mu.Unlock()
	slices.SortFunc(list, func(a, b *Series) int {
		if c := strings.Compare(a.key.Route, b.key.Route); c != 0 {
			return c
		}
		return strings.Compare(a.key.Backend, b.key.Backend)
	})
	return list
}

// Each calls f for every series there is, by route and backend.
func (m *Metrics) Each(f func(*Series)) {
	for _, s := range m.all() {
		f(s)
	}
}

// scraped drops the retired series of which a scrape has carried the last figures.
func (m *Metrics) scraped(list []*Series) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range list {
		if s.retired && m.series[s.key] == s {
			m.dropAtRest(s)
		}
	}
}
