package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

const registering = `apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: cart}
spec:
  endpoints: [{address: "10.0.0.11:50051", weight: 3}]
  registration: {maxLease: 5m}
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: closed}
spec: {endpoints: []}
`

// goodbye is the cause of a request that its client has given up, as the engine of the
// node says it; a connection that breaks says nothing.
type goodbye struct{ error }

func (goodbye) Cancelled() bool { return true }

// polite is a port whose clients say goodbye when they end a request, unless it is told
// that their connections break.
type polite struct {
	Port
	breaks *bool
}

func (p polite) Run(ctx context.Context, h http.Handler) error {
	return p.Port.Run(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
		stop := context.AfterFunc(r.Context(), func() {
			if *p.breaks {
				cancel(errors.New("the connection broke"))
			} else {
				cancel(goodbye{errors.New("the client said so")})
			}
		})
		defer stop()
		h.ServeHTTP(w, r.WithContext(ctx))
	}))
}

// registry is a node that takes registrations.
type registry struct {
	*testNode
	leases *store.Leases
	breaks bool // connections, from now on; set before a request ends
}

func startRegistry(t *testing.T) *registry {
	t.Helper()
	g := &registry{}
	g.testNode = startNode(t, func(_ *Config, parts *Parts) {
		g.leases = store.NewLeases(parts.Store, store.LeaseOptions{
			OwnAddresses: func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:8080")} },
		})
		parts.Leases = g.leases
		parts.Port = func(cfg PortConfig) (Port, error) {
			p, err := newTestPort(cfg)
			return polite{p, &g.breaks}, err
		}
	})
	g.apply(t, registering)
	return g
}

func announce(address string) *adminv1.RegisterRequest {
	return &adminv1.RegisterRequest{Backend: ref("", "cart"), Address: address}
}

func (g *registry) register(t *testing.T, r *adminv1.RegisterRequest) *adminv1.Registration {
	t.Helper()
	resp, err := g.backends.Register(t.Context(), connect.NewRequest(r))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg.GetRegistration()
}

// registered are the addresses that are announced, in order.
func (g *registry) registered() (addresses []string) {
	for _, o := range g.store.Snapshot().All(store.RegistrationKind) {
		addresses = append(addresses, o.Resource.(*store.Registration).Spec.Address)
	}
	slices.Sort(addresses)
	return addresses
}

func (g *registry) wantRegistered(t *testing.T, what string, want ...string) {
	t.Helper()
	if got := g.registered(); !slices.Equal(got, want) {
		t.Errorf("%s: registered are %q, want %q", what, got, want)
	}
}

// did are the audit lines of what was done to endpoints, the first first.
func (g *registry) did(t *testing.T) (lines []string) {
	t.Helper()
	resp, err := g.access.Audit(t.Context(), connect.NewRequest(&adminv1.AuditRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range slices.Backward(resp.Msg.GetEntries()) {
		if e.GetAction() == "Apply" || e.GetAction() == "CreateToken" {
			continue
		}
		line := e.GetAction()
		if e.GetRefused() {
			line += " refused"
		}
		for _, c := range e.GetChanges() {
			line += " " + c.GetAction()
		}
		lines = append(lines, line)
	}
	return lines
}

func (g *registry) wantDid(t *testing.T, what string, want ...string) {
	t.Helper()
	if got := g.did(t); !slices.Equal(got, want) {
		t.Errorf("%s: audit lines %q, want %q", what, got, want)
	}
}

func TestRegisterAnnouncesUntilDeregister(t *testing.T) {
	g := startRegistry(t)
	got := g.register(t, &adminv1.RegisterRequest{
		Backend: ref("", "cart"), Address: "10.0.0.13:50051", Weight: proto.Uint32(2), Zone: "eu-1b", Version: "1.4.2",
		Lease: durationpb.New(time.Minute), Reason: "scale up",
	})
	if left := time.Until(got.GetExpires().AsTime()); left < 50*time.Second || left > time.Minute {
		t.Errorf("it expires in %s", left)
	}
	if got.GetRegistered() == nil || !strings.HasPrefix(got.GetRef().GetName(), "cart-10-0-0-13-50051-") {
		t.Errorf("got %v", got)
	}
	got.Expires, got.Registered, got.Ref = nil, nil, nil
	wantMessage(t, got, `{"backend": {"kind": "Backend", "namespace": "default", "name": "cart"}, "address": "10.0.0.13:50051", "weight": 2,
		"zone": "eu-1b", "version": "1.4.2", "lease": "60s"}`)
	g.wantRegistered(t, "after register", "10.0.0.13:50051")

	// The same again is a renewal, and so is Renew: no line of audit, nothing on the disk.
	seq := g.store.Snapshot().Seq()
	g.register(t, &adminv1.RegisterRequest{
		Backend: ref("", "cart"), Address: "10.0.0.13:50051", Weight: proto.Uint32(2), Zone: "eu-1b", Version: "1.4.2", Lease: durationpb.New(time.Minute),
	})
	renewed, err := g.backends.Renew(t.Context(), connect.NewRequest(&adminv1.RenewRequest{Backend: ref("Backend", "cart"), Address: "10.0.0.13:50051"}))
	if err != nil || renewed.Msg.GetExpires() == nil {
		t.Errorf("renewed with %v, %v", renewed, err)
	}
	if now := g.store.Snapshot().Seq(); now != seq {
		t.Errorf("renewals have written: change %d after %d", now, seq)
	}
	g.wantDid(t, "after renewals", "Register create")
	g.register(t, announce("10.0.0.13:50051"))

	resp, err := g.backends.Deregister(t.Context(), connect.NewRequest(&adminv1.DeregisterRequest{Backend: ref("", "cart"), Address: "10.0.0.13:50051"}))
	if err != nil || len(resp.Msg.GetChanges()) != 1 {
		t.Fatalf("deregistered with %v, %v", resp, err)
	}
	g.wantRegistered(t, "after deregister")
	g.wantDid(t, "in the end", "Register create", "Register update", "Deregister delete")
}

func TestRegisterRefuses(t *testing.T) {
	g := startRegistry(t)
	lease := func(d time.Duration) *durationpb.Duration { return durationpb.New(d) }
	for _, tc := range []struct {
		name string
		req  *adminv1.RegisterRequest
		code connect.Code
		says string
	}{
		{"no backend", &adminv1.RegisterRequest{Address: "10.0.0.5:1"}, connect.CodeInvalidArgument, "backend"},
		{"another kind", &adminv1.RegisterRequest{Backend: ref("GRPCRoute", "cart"), Address: "10.0.0.5:1"}, connect.CodeInvalidArgument, "want Backend"},
		{"a backend that is not there", &adminv1.RegisterRequest{Backend: ref("", "gone"), Address: "10.0.0.5:1"}, connect.CodeNotFound, "Backend default/gone"},
		{"a backend that takes none", &adminv1.RegisterRequest{Backend: ref("", "closed"), Address: "10.0.0.5:1"}, connect.CodeInvalidArgument, "takes no registrations"},
		{"no address", announce(""), connect.CodeInvalidArgument, "address: is missing"},
		{"no port", announce("10.0.0.5"), connect.CodeInvalidArgument, "address"},
		{"every address", announce("0.0.0.0:50051"), connect.CodeInvalidArgument, "address"},
		{"the gateway itself", announce("10.0.0.1:8080"), connect.CodeInvalidArgument, "this gateway itself"},
		{"a lease of nothing", &adminv1.RegisterRequest{Backend: ref("", "cart"), Address: "10.0.0.5:1", Lease: lease(0)}, connect.CodeInvalidArgument, "lease"},
		{"a lease of a year", &adminv1.RegisterRequest{Backend: ref("", "cart"), Address: "10.0.0.5:1", Lease: lease(365 * 24 * time.Hour)}, connect.CodeInvalidArgument, "lease"},
		{"no duration", &adminv1.RegisterRequest{Backend: ref("", "cart"), Address: "10.0.0.5:1", Lease: &durationpb.Duration{Seconds: 1, Nanos: -1}}, connect.CodeInvalidArgument, "lease: is no duration"},
		{"a weight beyond all", &adminv1.RegisterRequest{Backend: ref("", "cart"), Address: "10.0.0.5:1", Weight: proto.Uint32(1 << 31)}, connect.CodeInvalidArgument, "weight"},
		{"a zone that moves the cursor", &adminv1.RegisterRequest{Backend: ref("", "cart"), Address: "10.0.0.5:1", Zone: "\x1b[2J"}, connect.CodeInvalidArgument, "zone"},
		{"a reason of two lines", &adminv1.RegisterRequest{Backend: ref("", "cart"), Address: "10.0.0.5:1", Reason: "a\nb"}, connect.CodeInvalidArgument, "reason"},
	} {
		// As gRPC, because not all of them can be said in JSON.
		client := adminv1.NewBackendServiceClient(g.bySocket(t), "http://localhost", connect.WithGRPC())
		_, err := client.Register(t.Context(), connect.NewRequest(tc.req))
		wantCode(t, "Register: "+tc.name, err, tc.code, tc.says)
		stream, err := client.Keep(t.Context(), connect.NewRequest(&adminv1.KeepRequest{Registration: tc.req}))
		if err == nil && stream.Receive() {
			t.Errorf("Keep: %s: got %v", tc.name, stream.Msg())
		}
		wantCode(t, "Keep: "+tc.name, firstError(err, stream), tc.code, tc.says)
	}
	g.wantRegistered(t, "in the end")
	if did := g.did(t); slices.ContainsFunc(did, func(line string) bool { return !strings.HasSuffix(line, " refused") }) || len(did) == 0 {
		t.Errorf("audit lines %q", did)
	}
	for _, address := range []string{"10.0.0.5:1", "nonsense"} {
		_, err := g.backends.Renew(t.Context(), connect.NewRequest(&adminv1.RenewRequest{Backend: ref("", "cart"), Address: address}))
		wantCode(t, "Renew", err, connect.CodeNotFound, "is not registered at Backend default/cart: its lease is over")
		_, err = g.backends.Deregister(t.Context(), connect.NewRequest(&adminv1.DeregisterRequest{Backend: ref("", "cart"), Address: address}))
		wantCode(t, "Deregister", err, connect.CodeNotFound, "is not registered at Backend default/cart")
	}
}

func TestNodeWithoutLeasesTakesNoRegistrations(t *testing.T) {
	n := startNode(t)
	_, err := n.backends.Register(t.Context(), connect.NewRequest(announce("10.0.0.5:1")))
	wantCode(t, "Register", err, connect.CodeUnimplemented, "this node takes no registrations")
}

// kept is a Keep that a test reads.
type kept struct {
	t      *testing.T
	g      *registry
	stream *connect.ServerStreamForClient[adminv1.KeepResponse]
	cancel context.CancelFunc
}

func (g *registry) keep(t *testing.T, r *adminv1.RegisterRequest, options ...connect.ClientOption) *kept {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	client := adminv1.NewBackendServiceClient(g.bySocket(t), "http://localhost", options...)
	stream, err := client.Keep(ctx, connect.NewRequest(&adminv1.KeepRequest{Registration: r}))
	if err != nil {
		t.Fatal(err)
	}
	k := &kept{t, g, stream, cancel}
	t.Cleanup(func() {
		cancel()
		stream.Close()
	})
	return k
}

func (k *kept) next() *adminv1.KeepResponse {
	k.t.Helper()
	if !k.stream.Receive() {
		k.t.Fatalf("the stream ended: %v", k.stream.Err())
	}
	return k.stream.Msg()
}

// end cancels the stream and waits until the node has done with it.
func (k *kept) end() {
	k.t.Helper()
	before := len(k.g.admin.api.keeps)
	k.cancel()
	k.g.await(k.t, "the stream has ended", func() bool { return len(k.g.admin.api.keeps) < before })
}

func (g *registry) await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for begun := time.Now(); !is(); time.Sleep(time.Millisecond) { // allow:sleep, a poll
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("not so: %s", what)
		}
	}
}

func TestKeepRegistersAsLongAsTheStream(t *testing.T) {
	for _, protocol := range []struct {
		name   string
		option connect.ClientOption
	}{{"connect", connect.WithProtoJSON()}, {"grpc", connect.WithGRPC()}, {"grpc-web", connect.WithGRPCWeb()}} {
		t.Run(protocol.name, func(t *testing.T) {
			t.Parallel()
			g := startRegistry(t)
			r := announce("10.0.0.13:50051")
			r.Lease = durationpb.New(time.Second)
			k := g.keep(t, r, protocol.option)
			first := k.next().GetRegistration()
			if !first.GetKept() || first.GetExpires() != nil || first.GetAddress() != "10.0.0.13:50051" {
				t.Errorf("the first response is %v", first)
			}
			g.wantRegistered(t, "with the first response", "10.0.0.13:50051")
			g.wantDid(t, "with the first response", "Register create")
			seq := g.store.Snapshot().Seq()
			for range 4 { // more than the lease
				if !k.next().GetRegistration().GetKept() {
					t.Error("it is no more kept")
				}
			}
			if g.store.Snapshot().Seq() != seq {
				t.Error("signs of life are written")
			}
			k.end()
			g.wantRegistered(t, "after the stream")
			g.wantDid(t, "after the stream", "Register create", "Deregister delete")
		})
	}
}

// What breaks may come back: it has its lease for that.
func TestKeepLeavesWhatBreaksToItsLease(t *testing.T) {
	g := startRegistry(t)
	k := g.keep(t, announce("10.0.0.13:50051"))
	id := store.ID{Kind: store.RegistrationKind, Namespace: "default", Name: k.next().GetRegistration().GetRef().GetName()}
	if until := g.leases.Expires(id); !until.IsZero() {
		t.Errorf("while it is kept, it expires at %s", until)
	}
	g.breaks = true
	k.end()
	g.wantRegistered(t, "after the break", "10.0.0.13:50051")
	if left := time.Until(g.leases.Expires(id)); left < 20*time.Second || left > 30*time.Second {
		t.Errorf("after the break it expires in %s", left)
	}
	// It comes back, and says goodbye this time.
	g.breaks = false
	k = g.keep(t, announce("10.0.0.13:50051"))
	k.next()
	k.end()
	g.wantRegistered(t, "in the end")
	g.wantDid(t, "in the end", "Register create", "Deregister delete")
}

func TestKeepEndsWithTheNodeAndLeavesTheRegistration(t *testing.T) {
	g := startRegistry(t)
	k := g.keep(t, announce("10.0.0.13:50051"))
	k.next()
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	for k.stream.Receive() {
	}
	wantCode(t, "the end", k.stream.Err(), connect.CodeUnavailable, "closing")
	g.wantRegistered(t, "after the node", "10.0.0.13:50051")
}

func TestKeepEndsWhenSomebodyEndsItsRegistration(t *testing.T) {
	g := startRegistry(t)
	r := announce("10.0.0.13:50051")
	r.Lease = durationpb.New(time.Second)
	k := g.keep(t, r)
	k.next()
	if _, err := g.backends.Deregister(t.Context(), connect.NewRequest(&adminv1.DeregisterRequest{Backend: ref("", "cart"), Address: r.GetAddress()})); err != nil {
		t.Fatal(err)
	}
	for k.stream.Receive() {
	}
	wantCode(t, "the end", k.stream.Err(), connect.CodeAborted, "ended by somebody else")
	g.wantDid(t, "the end", "Register create", "Deregister delete")
}

// Whose token is revoked says nothing more, and has not said goodbye.
func TestKeepEndsWithItsToken(t *testing.T) {
	g := startRegistry(t)
	token := g.token(t, adminv1.Role_ROLE_REGISTRAR)
	k := g.keep(t, announce("10.0.0.13:50051"), withToken(token))
	k.next()
	listed, err := g.access.ListTokens(t.Context(), connect.NewRequest(&adminv1.ListTokensRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.access.RevokeToken(t.Context(), connect.NewRequest(&adminv1.RevokeTokenRequest{Id: listed.Msg.GetTokens()[0].GetId()})); err != nil {
		t.Fatal(err)
	}
	for k.stream.Receive() {
	}
	wantCode(t, "the end", k.stream.Err(), connect.CodeUnauthenticated, "the token is unknown")
	g.wantRegistered(t, "after the token", "10.0.0.13:50051")
}

func TestKeepHasABound(t *testing.T) {
	g := startRegistry(t)
	g.admin.api.keeps = make(chan struct{}, 1)
	k := g.keep(t, announce("10.0.0.13:50051"))
	k.next()
	other := g.keep(t, announce("10.0.0.14:50051"))
	if other.stream.Receive() {
		t.Error("one more is kept")
	}
	wantCode(t, "one more", other.stream.Err(), connect.CodeResourceExhausted, "use Register and Renew")
	k.end()
	g.keep(t, announce("10.0.0.14:50051")).next()
}

// ledger is leases that only remember what they were told.
type ledger struct {
	store *store.Store
	real  *store.Leases
	full  error
}

func (l *ledger) Register(ctx context.Context, spec store.RegistrationSpec, namespace string, by store.Author) (*store.Object, error) {
	return l.real.Register(ctx, spec, namespace, by)
}
func (l *ledger) Renew(id store.ID) error            { return l.real.Renew(id) }
func (l *ledger) Expires(id store.ID) time.Time      { return l.real.Expires(id) }
func (l *ledger) Holds(id store.ID) (release func()) { return l.real.Holds(id) }

func (l *ledger) Deregister(ctx context.Context, id store.ID, by store.Author) error {
	if l.full != nil {
		return l.full
	}
	return l.real.Deregister(ctx, id, by)
}

// Several may announce one address: a process that starts again, before the node has
// noticed that its old stream has ended. Who goes takes nobody's registration away.
func TestKeepersEndOnlyWhatNobodyElseCountsOn(t *testing.T) {
	for _, tc := range []struct {
		name  string
		steps string // keepN, byeN (the client ends stream N), breakN, register, deregister
		stays bool
	}{
		{"one comes and goes", "keep1 bye1", false},
		{"one breaks", "keep1 break1", true},
		{"the new one comes before the old one goes", "keep1 keep2 bye1", true},
		{"both go", "keep1 keep2 bye1 bye2", false},
		{"both go, the new one first", "keep1 keep2 bye2 bye1", false},
		{"the new one breaks, then the old one goes", "keep1 keep2 break2 bye1", true},
		{"the old one breaks, then the new one goes", "keep1 keep2 break1 bye2", false},
		{"the old one broke, and comes back", "keep1 break1 keep2 bye2", false},
		{"another counts on its lease", "keep1 register bye1", true},
		{"what counted on its lease is kept now", "register keep1 bye1", false},
		{"an operator was faster", "keep1 deregister bye1", false},
		{"an operator, and then the new one", "keep1 deregister keep2 bye1", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := startRegistry(t)
			k := newKeepers(g.store, g.leases)
			spec := store.RegistrationSpec{Backend: "cart", Address: "10.0.0.13:50051", Weight: 1, Lease: store.Duration(time.Minute)}
			wish := &announcement{
				spec: spec, by: store.Author{Actor: "test"},
				id: store.ID{Kind: store.RegistrationKind, Namespace: "default", Name: store.RegistrationName(spec.Backend, spec.Address)},
			}
			streams := map[byte]*keeper{}
			for _, step := range strings.Fields(tc.steps) {
				var err error
				switch n := step[len(step)-1]; strings.TrimRight(step, "12") {
				case "keep":
					streams[n], _, err = k.keep(t.Context(), wish)
				case "bye", "break":
					_, err = k.part(t.Context(), streams[n], step[:3] == "bye", wish.by)
				case "register":
					_, err = k.register(t.Context(), wish)
				case "deregister":
					_, err = k.deregister(t.Context(), wish.id, wish.from, wish.by)
				}
				if err != nil {
					t.Fatalf("%s: %v", step, err)
				}
			}
			if stays := len(g.registered()) == 1; stays != tc.stays {
				t.Errorf("it stays: %v, want %v", stays, tc.stays)
			}
			if len(streams) == strings.Count(tc.steps, "bye")+strings.Count(tc.steps, "break") && len(k.kept) != 0 {
				t.Errorf("%d are kept by nobody", len(k.kept))
			}
		})
	}
}

// A disk that is full keeps nobody from going; the lease ends the registration.
func TestKeepOutlivesAFullDisk(t *testing.T) {
	l := &ledger{full: store.ErrFull}
	n := startNode(t, func(_ *Config, parts *Parts) {
		l.store, l.real = parts.Store, store.NewLeases(parts.Store, store.LeaseOptions{Log: slog.New(slog.DiscardHandler)})
		parts.Leases = l
		parts.Port = func(cfg PortConfig) (Port, error) {
			p, err := newTestPort(cfg)
			return polite{p, new(bool)}, err
		}
	})
	g := &registry{testNode: n, leases: l.real}
	g.apply(t, registering)
	k := g.keep(t, announce("10.0.0.13:50051"))
	k.next()
	k.end()
	g.wantRegistered(t, "after the stream", "10.0.0.13:50051")
	if log := n.log.String(); !strings.Contains(log, "registration not ended, its lease will") {
		t.Errorf("the log says nothing of it:\n%s", log)
	}
}

// A token can do no more than who made it: also a registrar's.
func TestTokenOfARegistrarFollowsItsMaker(t *testing.T) {
	for _, tc := range []struct {
		maker, token, want adminv1.Role
	}{
		{adminv1.Role_ROLE_ADMIN, adminv1.Role_ROLE_REGISTRAR, adminv1.Role_ROLE_REGISTRAR},
		{adminv1.Role_ROLE_OPERATOR, adminv1.Role_ROLE_REGISTRAR, adminv1.Role_ROLE_REGISTRAR},
		{adminv1.Role_ROLE_VIEWER, adminv1.Role_ROLE_REGISTRAR, adminv1.Role_ROLE_UNSPECIFIED},
		{adminv1.Role_ROLE_VIEWER, adminv1.Role_ROLE_ADMIN, adminv1.Role_ROLE_VIEWER},
		{adminv1.Role_ROLE_ADMIN, adminv1.Role_ROLE_OPERATOR, adminv1.Role_ROLE_OPERATOR},
	} {
		if got := noMoreThan(tc.maker, tc.token); got != tc.want {
			t.Errorf("a token of the role %s by a %s is a %s, want %s", tc.token, tc.maker, got, tc.want)
		}
	}
	s := newSite(t)
	_, err := s.local().access().CreateAccount(t.Context(), connect.NewRequest(&adminv1.CreateAccountRequest{
		Name: "robot", Password: "a long enough password", Role: adminv1.Role_ROLE_REGISTRAR,
	}))
	if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(fmt.Sprint(err), "role: want viewer, operator or admin") {
		t.Errorf("a person as a registrar: %v", err)
	}
}

// What a process announced to a backend that has gone is told of as long as it is kept.
func TestRegistrationTellsOfItsBackend(t *testing.T) {
	g := startRegistry(t)
	name := g.register(t, announce("10.0.0.13:50051")).GetRef().GetName()
	condition := func() *adminv1.Condition {
		return g.get(t, store.RegistrationKind, name).GetObject().GetConditions()[1]
	}
	if c := condition(); !c.GetStatus() {
		t.Errorf("with its backend: %v", c)
	}
	if _, err := g.resources.Delete(t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Ref: ref("Backend", "cart")})); err != nil {
		t.Fatal(err)
	}
	if c := condition(); c.GetStatus() || c.GetMessage() != "there is no Backend default/cart: the process gets no RPCs; declare it, and it does" {
		t.Errorf("without its backend: %v", c)
	}
	_, err := g.backends.Renew(t.Context(), connect.NewRequest(&adminv1.RenewRequest{Backend: ref("", "cart"), Address: "10.0.0.13:50051"}))
	wantCode(t, "Renew", err, connect.CodeNotFound, "")
}

// What one token has announced is not another registrar's to touch; operators may all.
func TestRegistrarTouchesOnlyItsOwn(t *testing.T) {
	g := startRegistry(t)
	as := func(role adminv1.Role) adminv1.BackendServiceClient {
		return adminv1.NewBackendServiceClient(g.bySocket(t), "http://localhost", withToken(g.token(t, role)))
	}
	mine, other := as(adminv1.Role_ROLE_REGISTRAR), as(adminv1.Role_ROLE_REGISTRAR) // of one name
	operator := as(adminv1.Role_ROLE_OPERATOR)
	const at, theirs = "10.0.0.13:50051", "10.0.0.14:50051"
	deregister := func(c adminv1.BackendServiceClient, address string) error {
		_, err := c.Deregister(t.Context(), connect.NewRequest(&adminv1.DeregisterRequest{Backend: ref("", "cart"), Address: address}))
		return err
	}
	renew := func(c adminv1.BackendServiceClient, address string) error {
		_, err := c.Renew(t.Context(), connect.NewRequest(&adminv1.RenewRequest{Backend: ref("", "cart"), Address: address}))
		return err
	}
	register := func(c adminv1.BackendServiceClient, address string, weight uint32) error {
		r := announce(address)
		r.Weight = proto.Uint32(weight)
		_, err := c.Register(t.Context(), connect.NewRequest(r))
		return err
	}
	keep := func(c adminv1.BackendServiceClient, address string) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := c.Keep(ctx, connect.NewRequest(&adminv1.KeepRequest{Registration: announce(address)}))
		if err == nil && stream.Receive() {
			return nil
		}
		return firstError(err, stream)
	}
	if err := errors.Join(register(mine, at, 1), register(operator, theirs, 1)); err != nil {
		t.Fatal(err)
	}
	seq := g.store.Snapshot().Seq()
	for _, address := range []string{at, theirs} {
		for what, try := range map[string]func() error{
			"register":   func() error { return register(other, address, 0) },
			"keep":       func() error { return keep(other, address) },
			"renew":      func() error { return renew(other, address) },
			"deregister": func() error { return deregister(other, address) },
		} {
			wantCode(t, what+" "+address, try(), connect.CodePermissionDenied,
				`token role_registrar has the role registrar, and somebody else registered "`+address+`" at Backend default/cart: only the token that did, or an operator, may change, renew or end that`)
		}
	}
	wantCode(t, "another spelling", register(other, "[::ffff:10.0.0.13]:50051", 0), connect.CodePermissionDenied, "somebody else registered")
	wantCode(t, "what an operator made", renew(mine, theirs), connect.CodePermissionDenied, "somebody else registered")
	if now := g.store.Snapshot().Seq(); now != seq {
		t.Errorf("something was written: change %d after %d", now, seq)
	}

	// An operator may change it; it stays whose it was.
	if err := errors.Join(register(operator, at, 5), renew(operator, at), renew(mine, at), register(mine, at, 2), deregister(mine, at)); err != nil {
		t.Errorf("mine: %v", err)
	}
	if err := errors.Join(register(other, at, 1), deregister(operator, at), deregister(operator, theirs)); err != nil {
		t.Errorf("what is free again: %v", err)
	}
	g.wantRegistered(t, "in the end")
}

// A drain outlives the process that it was meant for: the next one at that address learns
// why it gets no RPCs.
func TestRegisterTellsOfADrain(t *testing.T) {
	g := startRegistry(t)
	const at = "10.0.0.13:50051"
	drain := func(endpoints ...string) {
		t.Helper()
		g.register(t, announce(at)) // nobody can drain what was never there
		_, err := g.resources.Drain(t.Context(), connect.NewRequest(&adminv1.DrainRequest{Backend: ref("", "cart"), Endpoints: endpoints}))
		if err != nil {
			t.Fatal(err)
		}
	}
	told := func() []string {
		t.Helper()
		resp, err := g.backends.Register(t.Context(), connect.NewRequest(announce("[::ffff:10.0.0.13]:50051")))
		if err != nil {
			t.Fatal(err)
		}
		k := g.keep(t, announce(at))
		defer k.cancel()
		if !k.stream.Receive() {
			t.Fatal(k.stream.Err())
		}
		if got := k.stream.Msg().GetWarnings(); !slices.Equal(got, resp.Msg.GetWarnings()) {
			t.Errorf("Keep warns %q, Register %q", got, resp.Msg.GetWarnings())
		}
		return resp.Msg.GetWarnings()
	}
	if got := told(); len(got) != 0 {
		t.Errorf("without a drain: %q", got)
	}
	drain(at)
	since := g.store.Snapshot().All(store.BackendKind)[0].State.DrainOf(at).Since.UTC().Format(time.RFC3339)
	if got, want := told(), `"10.0.0.13:50051" is drained since `+since+", by "; len(got) != 1 || !strings.HasPrefix(got[0], want) ||
		!strings.HasSuffix(got[0], `: no RPC goes to "10.0.0.13:50051" before sluice backend undrain cart 10.0.0.13:50051`) {
		t.Errorf("drained: %q, want %q", got, want)
	}
	drain()
	if got := told(); len(got) != 1 || !strings.HasPrefix(got[0], "Backend default/cart is drained since ") && !strings.HasPrefix(got[0], `"10.0.0.13:50051" is drained since `) {
		t.Errorf("the whole backend drained: %q", got)
	}
}
