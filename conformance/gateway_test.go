package main

import "testing"

func TestParsePathsAddsUpEachPath(t *testing.T) {
	text := "# TYPE sluice_rpc_path_total counter\n" +
		"sluice_rpc_path_total{path=\"handler\"} 0\n" +
		"sluice_rpc_path_total{listener=\"a\",path=\"relay\"} 2\n" +
		"sluice_rpc_path_total{listener=\"b\",path=\"relay\"} 1e+03\n" +
		"sluice_rpc_path_totals{path=\"relay\"} 9\n"
	got, err := parsePaths([]byte(text))
	if want := (paths{Relay: 1002}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestParsePathsRefusesMetricsThatDoNotCount(t *testing.T) {
	if got, err := parsePaths([]byte("sluice_rpc_path_total{path=\"relay\"} 5\n")); err == nil {
		t.Errorf("got %+v, want an error", got)
	}
}

func TestPathsCheckWantsOnePathOnly(t *testing.T) {
	tests := []struct {
		name  string
		paths paths
		seam  bool
		ok    bool
	}{
		{"all relayed", paths{Relay: 5}, false, true},
		{"one handled", paths{Relay: 5, Handler: 1}, false, false},
		{"none at all", paths{}, false, false},
		{"all handled, as asked", paths{Handler: 5}, true, true},
		{"relayed, where handling was asked", paths{Relay: 5}, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.paths.check(tt.seam); (err == nil) != tt.ok {
				t.Errorf("got %v, want ok %t", err, tt.ok)
			}
		})
	}
}

func TestResourcesWriteARouteForEachBackend(t *testing.T) {
	got := resources(
		backend{name: "all", address: "127.0.0.1:1"},
		backend{name: "one", address: "127.0.0.1:2", service: "a.B", ca: "/ca.pem"},
	)
	want := `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: all}
spec:
  rules:
  - backendRefs: [{group: sluice.dev, kind: Backend, name: all}]
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: all}
spec:
  endpoints: [{address: "127.0.0.1:1"}]
  protocol: h2c
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: one}
spec:
  rules:
  - matches: [{method: {service: a.B}}]
    backendRefs: [{group: sluice.dev, kind: Backend, name: one}]
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: one}
spec:
  endpoints: [{address: "127.0.0.1:2"}]
  protocol: tls
  tls: {caFile: /ca.pem, serverName: localhost}
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
