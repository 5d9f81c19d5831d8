package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"sluice/gateway/observe"
	"sluice/gateway/rest"
	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// schemas are what is known of the methods of backends, compiled for those who look
// paths up.
type schemas struct {
	registry *schema.Registry
	current  atomic.Pointer[methods]
	asks     target // counts what the gateway itself asks of backends
}

// methods are those of one view. It does not change, but for what is compiled when it
// is first asked for.
type methods struct {
	view  *schema.View
	paths map[string]bool // of methods: "/shop.v1.Cart/Add"
	table *rest.Table

	mu       sync.Mutex // guards the fields below
	tables   map[string]*rest.Table
	outbound map[*schema.Method]*rest.Outbound // for backends that speak REST
}

// newSchemas is a registry that asks backends over the gateway's own connections.
func (g *Gateway) newSchemas() {
	s := &g.schemas
	s.asks = target{series: g.metrics.Use(observe.Key{Route: "reflection"})}
	s.registry = schema.NewRegistry(schema.Options{Open: g.ask, Log: g.log, Changed: g.compileMethods})
	g.compileMethods()
	g.pool.Connected = s.registry.Reconnected
}

// compileMethods follows the registry.
func (g *Gateway) compileMethods() {
	view := g.schemas.registry.View()
	all := view.Methods()
	m := &methods{view: view, paths: make(map[string]bool, len(all)), tables: make(map[string]*rest.Table)}
	for _, method := range all {
		m.paths[method.Path] = true
	}
	var faults []error
	m.table, faults = rest.NewTable(all)
	for _, fault := range faults {
		g.log.Warn("a path of REST is not served", "error", fault)
	}
	g.schemas.current.Store(m)
}

// table has the REST paths of all backends.
func (s *schemas) table() *rest.Table { return s.current.Load().table }

// knows tells whether some backend is known to have the method.
func (s *schemas) knows(path string) bool { return s.current.Load().paths[path] }

// facts are what a schema tells of a method; without one, nothing is known.
type facts struct {
	known                        bool
	clientStreams, serverStreams bool
	idempotent                   bool // it may be called twice
}

// streams tells a method of which one RPC may last.
func (f facts) streams() bool { return f.clientStreams || f.serverStreams }

// facts are those of a backend's method, by what is known now.
func (s *schemas) facts(backend, path string) facts {
	m := s.current.Load().view.Method(backend, path)
	if m == nil {
		return facts{}
	}
	return facts{known: true, clientStreams: m.ClientStreaming, serverStreams: m.ServerStreaming, idempotent: m.Idempotent}
}

// tableOf has the REST paths of one backend.
func (s *schemas) tableOf(backend string) *rest.Table {
	m := s.current.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tables[backend]
	if t == nil {
		var list []*schema.Method
		for _, of := range m.view.Schemas(backend) {
			list = append(list, of.Methods()...)
		}
		t, _ = rest.NewTable(list)
		m.tables[backend] = t
	}
	return t
}

// ask opens an RPC of the gateway's own to a backend.
func (g *Gateway) ask(ctx context.Context, backend, method string) (schema.Stream, error) {
	b := g.pool.Backend(backend)
	switch {
	case b == nil:
		return nil, fmt.Errorf("there is no backend %q", backend)
	case b.HTTP():
		return nil, fmt.Errorf("backend %q speaks HTTP/1, and cannot tell of itself", backend)
	case len(b.Endpoints) == 0:
		return nil, fmt.Errorf("backend %q has no endpoint", backend)
	}
	c := newCall(g, &placement{target: &g.schemas.asks, backend: b}, rest.Limits{MaxMessage: schema.MaxAnswer})
	c.r.target.series.Start()
	r := &http.Request{Host: b.Endpoints[0].Address()}
	r = r.WithContext(ctx)
	c.r.fields, _ = g.requestFields(c.r.inline[:0], r, &rest.Opening{Method: method, Codec: "proto"})
	c.follow(ctx)
	return asking{c}, nil
}

// asking is a conversation with a backend, in messages.
type asking struct{ c *call }

// Send implements schema.Stream.
func (a asking) Send(p []byte) error {
	if a.c.Send(rest.Message{Data: p}, false) != nil {
		return io.EOF // Receive tells how
	}
	return nil
}

// Receive implements schema.Stream.
func (a asking) Receive() ([]byte, error) {
	m, err := a.c.Receive()
	if err == nil && m.Compressed {
		err = a.c.Abort(&wire.Status{Code: wire.Internal, Message: "sluice: the backend compresses what should not be", Gateway: true})
	}
	if st := statusOfError(err); st != nil && st.Code == wire.Unimplemented {
		err = fmt.Errorf("%w: %w", schema.ErrUnimplemented, st)
	}
	return m.Data, err
}

// Close implements schema.Stream.
func (a asking) Close() { a.c.Close() }

// SchemaView is what is known now of the methods of backends.
func (g *Gateway) SchemaView() *schema.View { return g.schemas.registry.View() }

// LearnSchemas asks those of the backends that have not told yet for their methods, and
// tells whether something new is known.
func (g *Gateway) LearnSchemas(ctx context.Context, backends []string) bool {
	return g.schemas.registry.Learn(ctx, backends)
}
