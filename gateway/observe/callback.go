package observe

import "github.com/prometheus/client_golang/prometheus"

// Parts that count for themselves, in atomics of their own, are asked when somebody
// scrapes. The functions they leave here may be called from several goroutines at
// once, and must not block. A name that is registered twice with the same labels,
// or with other help or other label names, is a bug and panics.

// Show adds what somebody else collects.
func (m *Metrics) Show(c prometheus.Collector) { m.registry.MustRegister(c) }

// CounterFunc shows what f returns as a counter; it must never fall. The labels are
// constant and may be nil.
func (m *Metrics) CounterFunc(name, help string, labels map[string]string, f func() float64) {
	opts := prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}
	m.registry.MustRegister(prometheus.NewCounterFunc(opts, f))
}

// GaugeFunc shows what f returns as a gauge. The labels are constant and may be
// nil.
func (m *Metrics) GaugeFunc(name, help string, labels map[string]string, f func() float64) {
	opts := prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}
	m.registry.MustRegister(prometheus.NewGaugeFunc(opts, f))
}

// Emit shows one value, with a value for each label name, in their order.
type Emit func(value float64, labelValues ...string)

// CounterVecFunc shows what f emits as counters of one name, one for each set of
// label values; none may fall. The set may change from scrape to scrape, and comes
// from the configuration.
func (m *Metrics) CounterVecFunc(name, help string, labelNames []string, f func(Emit)) {
	m.registry.MustRegister(vector{prometheus.NewDesc(name, help, labelNames, nil), prometheus.CounterValue, f})
}

// GaugeVecFunc shows what f emits as gauges, as CounterVecFunc does counters.
func (m *Metrics) GaugeVecFunc(name, help string, labelNames []string, f func(Emit)) {
	m.registry.MustRegister(vector{prometheus.NewDesc(name, help, labelNames, nil), prometheus.GaugeValue, f})
}

// vector is the metrics of one name that a function emits.
type vector struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	emit func(Emit)
}

func (v vector) Describe(ch chan<- *prometheus.Desc) { ch <- v.desc }

func (v vector) Collect(ch chan<- prometheus.Metric) {
	v.emit(func(value float64, labelValues ...string) {
		metric, err := prometheus.NewConstMetric(v.desc, v.kind, value, labelValues...)
		if err != nil {
			metric = prometheus.NewInvalidMetric(v.desc, err)
		}
		ch <- metric
	})
}
