package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/cluster"
)

// clusterMetrics are what scrapers are told of the cluster. They are asked for at each
// scrape; there is nothing to keep.
type clusterMetrics struct{ peers *peers }

var (
	membersMetric     = clusterMetric("members", "Gateways of the cluster that are known, this one included, by how they are.", "state")
	driftMetric       = clusterMetric("members_drift", "Live gateways whose objects are not those of this one.")
	bytesMetric       = clusterMetric("bytes_total", "Bytes of gossip.", "transport", "direction")
	refusedMetric     = clusterMetric("refused_total", "Messages of gossip that were refused, by reason.", "reason")
	droppedMetric     = clusterMetric("dropped_total", "Messages of gossip that found no room in a queue, by reason; a comparison makes up for them.", "reason")
	mergedMetric      = clusterMetric("merged_total", "Versions of objects that were taken from other gateways.")
	conflictsMetric   = clusterMetric("conflicts_total", "Of those, versions that two gateways made unknown to each other.")
	comparisonsMetric = clusterMetric("comparisons_total", "Comparisons that were begun because digests differed.")
	carriedMetric     = clusterMetric("carried", "Objects of a newer version of the program, which are kept, passed on and not understood.")
)

func clusterMetric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sluice_cluster_"+name, help, labels, nil)
}

// Describe lists them.
func (m clusterMetrics) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		membersMetric, driftMetric, bytesMetric, refusedMetric, droppedMetric, mergedMetric, conflictsMetric, comparisonsMetric, carriedMetric,
	} {
		descs <- d
	}
}

// Collect asks the cluster.
func (m clusterMetrics) Collect(metrics chan<- prometheus.Metric) {
	show := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, kind, value, labels...)
	}
	s := m.peers.cluster.Stats()
	show(membersMetric, prometheus.GaugeValue, float64(s.Alive), string(cluster.Alive))
	show(membersMetric, prometheus.GaugeValue, float64(s.Dead), string(cluster.Dead))
	show(membersMetric, prometheus.GaugeValue, float64(s.Left), string(cluster.Left))
	show(driftMetric, prometheus.GaugeValue, float64(m.drifting()))
	for transport, traffic := range map[string]cluster.Traffic{"udp": s.Packets, "tcp": s.Streams} {
		show(bytesMetric, prometheus.CounterValue, float64(traffic.Received), transport, "in")
		show(bytesMetric, prometheus.CounterValue, float64(traffic.Sent), transport, "out")
	}
	for reason, n := range s.Refused {
		show(refusedMetric, prometheus.CounterValue, float64(n), reason)
	}
	for reason, n := range s.Dropped {
		show(droppedMetric, prometheus.CounterValue, float64(n), reason)
	}
	show(mergedMetric, prometheus.CounterValue, float64(s.Merged))
	show(conflictsMetric, prometheus.CounterValue, float64(s.Conflicts))
	show(comparisonsMetric, prometheus.CounterValue, float64(s.Comparisons))
	show(carriedMetric, prometheus.GaugeValue, float64(s.Carried))
}

// drifting is how many live members have something else than this node.
func (m clusterMetrics) drifting() (n int) {
	for _, member := range m.peers.cluster.Members() {
		if member.State == cluster.Alive && member.Drift {
			n++
		}
	}
	return n
}
