package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// apiPrefix is what the path of every procedure begins with.
const apiPrefix = "/sluice.admin.v1."

// How long the services wait.
const (
	programTime = 2 * time.Second  // for a change to be in force, before the answer says that it is not
	aliveEvery  = 15 * time.Second // between two messages of a Watch, at the most
)

// How much the services have at once.
const (
	maxWatches = 64  // open; each costs one goroutine and what its connection buffers
	maxKeeps   = 512 // registrations that streams keep; each costs as much, and often a connection
	maxCopies  = 1   // backups and restores under way: each is a file as large as the store
)

// How much of the manifests one answer has, in bytes; beyond that they are left out.
const (
	maxListed  = 64 << 20 // of Get and List, so that a whole configuration fits
	maxWritten = 3 << 20  // of what a write changed: clients of gRPC take messages of 4 MiB unless told otherwise
	maxShown   = 32 << 20 // of Diff and History, of which they are the point
)

// api serves the services of the admin API.
type api struct {
	// Fixed at construction.
	store   *store.Store
	gateway Gateway
	access  *Access
	log     *slog.Logger
	dataDir string
	parts   Parts
	addr    net.Addr
	started time.Time
	mux     http.Handler
	large   chan struct{} // a place for each request with a large body
	parsing chan struct{} // full while a large text is parsed
	watches chan struct{} // a place for each Watch
	keeps   chan struct{} // a place for each Keep
	keepers *keepers
	copies  chan struct{} // a place for each Backup and Restore

	closing context.Context // done when the door closes: streams end then
	close   context.CancelFunc
}

func newAPI(cfg Config, parts Parts, access *Access, addr net.Addr, log *slog.Logger) (*api, error) {
	if parts.Gateway == nil {
		return nil, errors.New("admin: a store and no gateway")
	}
	a := &api{
		store: parts.Store, gateway: parts.Gateway, access: access, log: log,
		dataDir: cfg.DataDir, parts: parts, addr: addr, started: time.Now(),
		large:   make(chan struct{}, maxLarge),
		parsing: make(chan struct{}, 1),
		watches: make(chan struct{}, maxWatches),
		keeps:   make(chan struct{}, maxKeeps),
		keepers: newKeepers(parts.Store, parts.Leases),
		copies:  make(chan struct{}, maxCopies),
	}
	a.closing, a.close = context.WithCancel(context.Background())
	a.mux = a.services()
	return a, nil
}

// services is the table of what is served. An error is translated before access
// notes it, and a panic before it is an error.
func (a *api) services() http.Handler {
	options := append(a.access.HandlerOptions(),
		connect.WithInterceptors(translator{a.log}),
		recovered(a.log),
	)
	mux := http.NewServeMux()
	mux.Handle(adminv1.NewResourceServiceHandler(&resourceService{a}, options...))
	mux.Handle(adminv1.NewNodeServiceHandler(&nodeService{a}, options...))
	mux.Handle(adminv1.NewSchemaServiceHandler(&schemaService{a}, options...))
	mux.Handle(adminv1.NewBackendServiceHandler(&backendService{a}, options...))
	mux.Handle(adminv1.NewClusterServiceHandler(&clusterService{a}, options...))
	mux.Handle(a.access.Service())
	return mux
}

// Run ends the streams when ctx is done: they have no end of their own.
func (a *api) Run(ctx context.Context) error {
	defer a.close()
	return a.access.Run(ctx)
}

// serves says whether a request is for the API.
func (a *api) serves(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, apiPrefix) }

// author is who sent a request, for the history.
func author(ctx context.Context, reason string) (store.Author, error) {
	switch {
	case len(reason) > maxReason:
		return store.Author{}, store.Faults{{Field: "reason", Message: fmt.Sprintf("%d bytes, limit %d", len(reason), maxReason)}}
	case strings.ContainsFunc(reason, unicode.IsControl):
		return store.Author{}, store.Faults{{Field: "reason", Message: "has control characters: want one line of text"}}
	}
	id := IdentityFrom(ctx)
	return store.Author{Actor: id.Actor, Via: id.Via, Address: id.Address, Reason: reason}, nil
}

// maxReason bounds a reason, bytes: it is a sentence, and kept with every object.
const maxReason = 1000
