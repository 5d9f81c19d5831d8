package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/gateway"
	"sluice/gateway/listen"
	"sluice/gateway/schema"
	"sluice/store"
)

// gatewayPart is what the node needs of the gateway.
type gatewayPart interface {
	// Apply puts a set in force. What of it cannot be is the error, of type
	// gateway.Problems, and all else is.
	Apply(*store.Set) error
	// Check is what Apply would refuse of the changed objects of a set.
	Check(set *store.Set, changed []store.ID) store.Faults
	// Problems are what cannot be in force as it is declared, at this moment.
	Problems() gateway.Problems
	// Explain says which rule an RPC would meet, and why.
	Explain(authority, path string, headers [][2]string) gateway.Explanation
	// Observed is what was seen of the rules of a route in the last minute.
	Observed(route store.ID) []gateway.ObservedRule
	// Endpoints are those of a backend, "namespace/name", and how each is.
	Endpoints(backend string) []gateway.ObservedEndpoint
	// Rebalance ends that share of the long streams of those endpoints of a backend that
	// have more than their part.
	Rebalance(backend string, percent int) (moved int, err error)
	// OwnAddresses are where the gateway is reached: no process may register there. OwnPort
	// adds a port.
	OwnAddresses() []netip.AddrPort
	OwnPort(net.Addr)
	// SchemaView is what is known of the methods of backends; LearnSchemas asks those
	// that have not told yet, and tells whether something new is known.
	SchemaView() *schema.View
	LearnSchemas(ctx context.Context, backends []string) bool
	// ReloadCertificates reads the files of the one port's TLS again, and
	// keeps the last good ones when that fails.
	ReloadCertificates() error
	// Run serves until ctx is done, then drains.
	Run(context.Context) error
	Addr() net.Addr
	// Ready is nil when new RPCs are welcome, and else says why not.
	Ready() error
	// Reach finds out whether an endpoint of the backend "namespace/name" can be reached.
	Reach(ctx context.Context, backend, address string) bool
	// Observations waits until endpoints have fallen ill or are well again; Hint takes in
	// what another gateway has seen of one.
	Observations(ctx context.Context) []gateway.Observation
	Hint(backend, address string, down bool)
	// SetPeers says how many gateways live, this one included.
	SetPeers(live int)
	// Metrics answers Prometheus; ShowMetrics adds what another part tells of itself.
	Metrics() http.Handler
	ShowMetrics(of prometheus.Collector)
}

// newGateway opens the one port and serves nothing yet.
var newGateway = func(cfg *config, log *slog.Logger) (gatewayPart, error) {
	return gateway.New(gateway.Config{
		Listen: listen.Config{
			Address: cfg.listen,
			TLSCert: cfg.tlsCert, TLSKey: cfg.tlsKey, TLSClientCA: cfg.tlsClientCA,
			ProxyProtocol: cfg.proxyProtocol, TrustedProxies: cfg.trusted(),
		},
		TrustedProxies: cfg.trusted(),
		TrustedHops:    cfg.trustedHops,
		Grace:          cfg.graceOrNone(),
		DrainDelay:     cfg.drainDelay,

		MaxConnectionAge:      cfg.maxConnectionAge,
		MaxConnectionAgeGrace: cfg.maxConnectionAgeGrace,

		Zone:      cfg.zone,
		Handler:   testHandler(),
		RelayAll:  os.Getenv("SLUICE_TEST_RELAY_ALL") == "1",
		HandleAll: os.Getenv("SLUICE_TEST_HANDLER") == "1",
	}, log)
}

// testHandler is what h2spec judges the seam by: it reads a request to its end and
// answers 200. Without the switch that asks for it there is none.
func testHandler() http.Handler {
	if os.Getenv("SLUICE_TEST_HANDLER") != "1" {
		return nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		// The suite's next frame has to find the stream open.
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Millisecond):
		}
		if err == nil {
			io.WriteString(w, "read to the end\n")
		}
	})
}

// openGateway opens the one port: RPCs in, RPCs out, by a table compiled from what the
// store holds.
func (n *node) openGateway() (err error) {
	n.gateway, err = newGateway(n.cfg, n.log.With("part", "gateway"))
	return explainListen(err, "--listen", n.cfg.listen)
}
