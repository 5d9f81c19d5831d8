package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	echov1 "sluice/bench/echo/v1"
)

// newSluice is the entry of one binary of ours. There may be several, so that
// two builds can be compared within one run.
func newSluice(name, binary string) proxy {
	return proxy{
		name: name, tool: binary, version: []string{"version"}, ours: true,
		command: func(b *bench, s site) (command, error) { return sluiceCommand(binary, s) },
	}
}

// buildSluice compiles the checkout as it is released: static.
func buildSluice(ctx context.Context, root, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, ".")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build sluice: %w\n%s", err, said)
	}
	return nil
}

const backendYAML = `apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: echo}
spec:
  endpoints: [{address: "{a}"}, {address: "{b}"}]
  protocol: h2c
  loadBalancing: {policy: LeastRequest}
`

const routeYAML = `---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: {name}}
spec:
  rules:
  - matches: [{method: {service: {service}}}]
    backendRefs: [{group: sluice.dev, kind: Backend, name: echo}]
`

const schemaYAML = `---
apiVersion: sluice.dev/v1alpha1
kind: Schema
metadata: {name: notes}
spec: {backendRefs: [{name: echo}], descriptorSet: "{set}"}
`

// sluiceCommand starts the gateway as an operator does, with everything on
// that a row is to include: a route that matches by service, two endpoints,
// deadlines, metrics.
func sluiceCommand(binary string, s site) (command, error) {
	file, err := writeConfig(s, "resources.yaml", resources(s))
	argv := []string{
		binary, "serve", "--data-dir", filepath.Join(s.dir, "data"),
		"--listen", s.addr, "--admin", s.admin, "--resources", file,
	}
	if s.pair != nil {
		argv = append(argv, "--tls-cert", s.pair.cert, "--tls-key", s.pair.key)
	}
	return command{argv: argv, env: append([]string{"SLUICE_PPROF=true"}, oneCore...)}, err
}

// resources is the backend and as many routes as the site asks for, the one
// that is used last.
func resources(s site) string {
	var text strings.Builder
	text.WriteString(fill(backendYAML, s))
	for i := range max(s.routes, 1) - 1 {
		text.WriteString(fill(routeYAML, s, "{name}", fmt.Sprintf("other-%d", i), "{service}", fmt.Sprintf("bench.v1.Other%d", i)))
	}
	if s.schema != nil {
		text.WriteString(fill(routeYAML, s, "{name}", "notes", "{service}", echov1.Echo_ServiceDesc.ServiceName))
		text.WriteString(fill(schemaYAML, s, "{set}", base64.StdEncoding.EncodeToString(s.schema)))
		return text.String()
	}
	text.WriteString(fill(routeYAML, s, "{name}", "echo", "{service}", service))
	return text.String()
}

// counts are the RPCs that the gateway says it has served.
type counts struct {
	ok, other       int // by grpc-status: OK, any other
	relay, elsewise int // by path: the relay, any other

	// By protocol, where a row looks at it: the row's, any other.
	spoken, otherwise int
}

// readCounts takes the counts from a page of metrics. Builds before the protocols
// do not count them; protocol is empty for the rows that they can be measured in.
func readCounts(p page, protocol string) counts {
	ok := p.sum("sluice_rpc_ended_total", "code", "OK")
	relay := p.sum("sluice_rpc_path_total", "path", "relay")
	c := counts{
		ok:       int(ok),
		other:    int(p.sum("sluice_rpc_ended_total") - ok),
		relay:    int(relay),
		elsewise: int(p.sum("sluice_rpc_path_total") - relay),
	}
	if protocol != "" {
		spoken := p.sum("sluice_request_total", "protocol", protocol)
		c.spoken, c.otherwise = int(spoken), int(p.sum("sluice_request_total")-spoken)
	}
	return c
}

func (c counts) minus(d counts) counts {
	return counts{
		c.ok - d.ok, c.other - d.other, c.relay - d.relay, c.elsewise - d.elsewise,
		c.spoken - d.spoken, c.otherwise - d.otherwise,
	}
}

func (i *instance) counts(protocol string) (counts, error) {
	text, err := get("http://" + i.site.admin + "/metrics")
	if err != nil {
		return counts{}, err
	}
	p, err := parsePage(text)
	return readCounts(p, protocol), err
}

// counted fails unless the gateway has counted exactly these RPCs since before:
// all OK, which it reads from the trailer, and all by the path and the protocol of
// the speech. It may count one a moment after the client has its reply.
func (i *instance) counted(before counts, s *speech, rpcs int) error {
	want := s.counts(rpcs)
	var got counts
	for range 20 {
		now, err := i.counts(s.protocol)
		if err != nil {
			return err
		}
		if got = now.minus(before); got == want {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s counted %+v, want %+v", i.proxy.name, got, want)
}

// freeMemory makes the gateway hand back what its collector holds, and says
// whether it could be told to.
func (i *instance) freeMemory() bool {
	_, err := get("http://" + i.site.admin + "/debug/freeosmemory")
	return err == nil
}
