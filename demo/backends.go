package demo

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	shopv1 "sluice/demo/shop/v1"
)

// Backends are versions of the example service, each on a free port of the
// loopback interface, with health checking and reflection.
type Backends struct {
	list []*backend
}

type backend struct {
	version string
	ln      net.Listener
	srv     *grpc.Server
}

// NewBackends opens one listener per version and serves nothing yet. Run or
// Close releases the listeners.
func NewBackends(versions ...string) (*Backends, error) {
	b := &Backends{}
	for _, version := range versions {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Close()
			return nil, fmt.Errorf("listen for demo backend %s: %w", version, err)
		}
		b.list = append(b.list, &backend{version: version, ln: ln, srv: newServer(version)})
	}
	return b, nil
}

func newServer(version string) *grpc.Server {
	srv := grpc.NewServer()
	shopv1.RegisterCartServer(srv, &cart{version: version})
	ready := health.NewServer()
	ready.SetServingStatus(shopv1.Cart_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(srv, ready)
	reflection.Register(srv)
	return srv
}

// Addr returns where a version listens, "" when there is no such version.
func (b *Backends) Addr(version string) string {
	for _, one := range b.list {
		if one.version == version {
			return one.ln.Addr().String()
		}
	}
	return ""
}

// Run serves until ctx is done; streams that are open then are cut.
func (b *Backends) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, one := range b.list {
		g.Go(func() error { return one.run(ctx) })
	}
	return g.Wait()
}

func (b *backend) run(ctx context.Context) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		b.srv.Stop()
	})
	err := b.srv.Serve(b.ln)
	if !stop() {
		<-stopped
	}
	if ctx.Err() != nil || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return fmt.Errorf("serve demo backend %s: %w", b.version, err)
}

// Close releases the listeners of backends that were never run.
func (b *Backends) Close() {
	for _, one := range b.list {
		one.ln.Close()
	}
}

// Resources returns what an operator would write for these backends: a split
// of the example service by weight (percent, in the order of the versions),
// with health checks and reflection answered by the first version.
func (b *Backends) Resources(weights ...int) []byte {
	out := []byte(resourcesHead)
	for i, one := range b.list {
		out = fmt.Appendf(out, "    - {group: sluice.dev, kind: Backend, name: cart-%s, weight: %d}\n", one.version, weights[i])
	}
	out = fmt.Appendf(out, resourcesTools, b.list[0].version)
	for _, one := range b.list {
		out = fmt.Appendf(out, resourcesBackend, one.version, one.ln.Addr())
	}
	return out
}

const resourcesHead = `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart}
spec:
  rules:
  - name: split
    matches:
    - {method: {service: shop.v1.Cart}}
    backendRefs:
`

const resourcesTools = `---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: tools}
spec:
  rules:
  - name: reflection-and-health
    matches:
    - {method: {service: grpc.reflection.v1.ServerReflection}}
    - {method: {service: grpc.reflection.v1alpha.ServerReflection}}
    - {method: {service: grpc.health.v1.Health}}
    backendRefs:
    - {group: sluice.dev, kind: Backend, name: cart-%s}
`

const resourcesBackend = `---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: cart-%s}
spec:
  endpoints:
  - {address: "%s"}
`
