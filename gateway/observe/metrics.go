package observe

import (
	"net/http"
	"regexp"
	"slices"
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

	mu      sync.Mutex // guards the fields below and what each Series says it guards; not taken per RPC
	series  map[Key]*Series
	retired map[*Series]bool // those that no rule has
	samples int              // taken so far
}

// mutexWait adds how long goroutines have waited for locks, which for a relay is
// the figure that says whether it will scale to more cores.
var mutexWait = collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/sync/mutex/wait/total:seconds$`)}

// New makes the metrics of a gateway, with those of the Go runtime and of the
// process.
func New() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), series: make(map[Key]*Series), retired: make(map[*Series]bool)}
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

// Use is the series of a key, made when there is none yet, for one more rule that
// will Release it: the same one for the same key until it is dropped. It takes a
// lock: ask when a table is compiled, not for each RPC.
func (m *Metrics) Use(key Key) *Series {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.series[key]
	if s == nil {
		s = newSeries(key)
		m.series[key] = s
	}
	s.users++
	delete(m.retired, s)
	return s
}

// Release says that a rule is in no table any more. A series without rules is
// retired. It is shown until it has no open RPC and a scrape has carried its last
// figures; or, when nobody scrapes, until it has been at rest for some minutes.
// So nothing is lost of an RPC that was routed by the table before.
func (m *Metrics) Release(s *Series) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.users--; s.users == 0 {
		m.retired[s] = true
		s.seen, s.age = s.Started(), 0
	}
}

// dropAtRest drops a retired series that has had no RPC since it was last looked
// at. The caller holds mu.
func (m *Metrics) dropAtRest(s *Series) {
	started := s.Started()
	if s.Open() == 0 && started == s.seen {
		delete(m.series, s.key)
		delete(m.retired, s)
	}
	s.seen = started
}

// all is every series, by route, rule and backend.
func (m *Metrics) all() []*Series {
	m.mu.Lock()
	list := make([]*Series, 0, len(m.series))
	for _, s := range m.series {
		list = append(list, s)
	}
	m.mu.Unlock()
	slices.SortFunc(list, func(a, b *Series) int { return a.key.compare(b.key) })
	return list
}

// Each calls f for every series there is, by route, rule and backend.
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
		if m.retired[s] {
			m.dropAtRest(s)
		}
	}
}
