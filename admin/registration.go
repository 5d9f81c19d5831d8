package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// defaultLease is what holds when a process does not say: two of three renewals, 10 s
// apart, may be lost.
const defaultLease = 30 * time.Second

// Register announces a process as an endpoint.
func (s *backendService) Register(ctx context.Context, req *connect.Request[adminv1.RegisterRequest]) (*connect.Response[adminv1.RegisterResponse], error) {
	wish, err := s.announcement(ctx, req.Msg)
	if err != nil {
		return nil, err
	}
	done, err := s.keepers.register(ctx, wish)
	if err != nil {
		return nil, err
	}
	if done.renewed() {
		noteNothing(ctx)
	} else {
		NoteChanges(ctx, done.changes())
	}
	return connect.NewResponse(&adminv1.RegisterResponse{
		Registration: s.registrationMessage(done.after), Warnings: s.warnings(ctx, wish),
		Peers: s.confirm(ctx, wish.wait, done.stored()),
	}), nil
}

// announcement is what a process asks for.
type announcement struct {
	id      store.ID // of the Registration
	backend store.ID
	spec    store.RegistrationSpec
	by      store.Author
	from    claimant
	wait    adminv1.Wait
}

// announcement reads a request. Whether it can be, the leases know.
func (s *backendService) announcement(ctx context.Context, m *adminv1.RegisterRequest) (*announcement, error) {
	by, err := author(ctx, m.GetReason())
	if err != nil {
		return nil, err
	}
	if err := checkWait(m.GetWait()); err != nil {
		return nil, err
	}
	w := &announcement{by: by, from: claimantOf(ctx), wait: m.GetWait()}
	if w.backend, w.id, err = s.registrationID(m.GetBackend(), m.GetAddress()); err != nil {
		return nil, err
	}
	w.spec = store.RegistrationSpec{
		Backend: w.backend.Name, Address: m.GetAddress(), Weight: 1, Zone: m.GetZone(), Version: m.GetVersion(),
		Lease: store.Duration(defaultLease), Token: w.from.token,
	}
	if m.Weight != nil {
		w.spec.Weight = m.GetWeight()
	}
	if m.GetLease() != nil {
		lease, err := durationOf("lease", m.GetLease())
		if err != nil {
			return nil, err
		}
		w.spec.Lease = store.Duration(lease)
	}
	return w, nil
}

// registrationID is the Registration that a request is about, and its Backend.
func (s *backendService) registrationID(ref *adminv1.Ref, address string) (backend, id store.ID, err error) {
	if backend, err = s.kindOf("backend", ref, store.BackendKind); err != nil {
		return backend, id, err
	}
	if s.parts.Leases == nil {
		return backend, id, refuse(connect.CodeUnimplemented, "this node takes no registrations")
	}
	if address == "" {
		return backend, id, store.Faults{{Field: "address", Message: "is missing"}}
	}
	return backend, store.ID{
		Kind: store.RegistrationKind, Namespace: backend.Namespace, Name: store.RegistrationName(backend.Name, address),
	}, nil
}

// durationOf reads a duration of a request, which may be no duration at all. Unset is zero.
func durationOf(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if d.CheckValid() != nil {
		return 0, store.Faults{{Field: field, Message: "is no duration"}}
	}
	return d.AsDuration(), nil
}

// duration is a duration in a message; zero is unset.
func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// Renew begins a lease anew.
func (s *backendService) Renew(ctx context.Context, req *connect.Request[adminv1.RenewRequest]) (*connect.Response[adminv1.RenewResponse], error) {
	backend, id, err := s.registrationID(req.Msg.GetBackend(), req.Msg.GetAddress())
	if err != nil {
		return nil, err
	}
	if o, found := s.store.Snapshot().Get(id); found {
		if err := claimantOf(ctx).may(o); err != nil {
			return nil, err
		}
	}
	if err := s.parts.Leases.Renew(id); err != nil {
		if errors.Is(err, store.ErrNoLease) {
			return nil, refuse(connect.CodeNotFound, "%s is not registered at %s: its lease is over, or somebody has ended it; register it again",
				quoted(req.Msg.GetAddress()), backend)
		}
		return nil, err
	}
	noteNothing(ctx)
	return connect.NewResponse(&adminv1.RenewResponse{Expires: stamp(s.parts.Leases.Expires(id))}), nil
}

// Deregister ends a registration.
func (s *backendService) Deregister(ctx context.Context, req *connect.Request[adminv1.DeregisterRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	by, err := author(ctx, req.Msg.GetReason())
	if err != nil {
		return nil, err
	}
	if err := checkWait(req.Msg.GetWait()); err != nil {
		return nil, err
	}
	backend, id, err := s.registrationID(req.Msg.GetBackend(), req.Msg.GetAddress())
	if err != nil {
		return nil, err
	}
	change, err := s.keepers.deregister(ctx, id, claimantOf(ctx), by)
	var missing *store.NotFoundError
	if errors.As(err, &missing) {
		return nil, refuse(connect.CodeNotFound, "%s is not registered at %s", quoted(req.Msg.GetAddress()), backend)
	}
	if err != nil {
		return nil, err
	}
	seq := s.store.Snapshot().Seq()
	ended, err := s.store.History(id, 0, 1)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.WriteResponse{
		Changes: []*adminv1.Change{change}, Warnings: s.settle(ctx, seq, backend), Sequence: seq,
		Peers: s.confirm(ctx, req.Msg.GetWait(), ended),
	}), nil
}

// warnings are what a process has to know about its registration that holds: why it may
// get no RPCs all the same.
func (s *backendService) warnings(ctx context.Context, w *announcement) []string {
	warnings := s.settle(ctx, s.store.Snapshot().Seq(), w.backend)
	snapshot := s.store.Snapshot()
	backend, found := snapshot.Get(w.backend)
	own, kept := snapshot.Get(w.id)
	if !found || !kept {
		return warnings
	}
	r, ok := own.Resource.(*store.Registration)
	if !ok {
		return warnings
	}
	if d := backend.State.DrainOf(r.Spec.Address); d != nil {
		warnings = append(warnings, drainWarning(w.backend, r.Spec.Address, d))
	}
	return warnings
}

// drainWarning tells a process that an operator has taken its address out of the choice,
// maybe before it was there.
func drainWarning(backend store.ID, address string, d *store.Drain) string {
	what, undrain := quoted(address), backend.Name+" "+address
	if d.Endpoint == "" {
		what, undrain = backend.String(), backend.Name
	}
	since := ""
	if !d.Since.IsZero() {
		since = " since " + d.Since.UTC().Format(time.RFC3339)
	}
	if backend.Namespace != store.DefaultNamespace {
		undrain += " --namespace " + backend.Namespace
	}
	return fmt.Sprintf("%s is drained%s, by %s: no RPC goes to %s before sluice backend undrain %s",
		what, since, cmp.Or(d.By, "somebody"), quoted(address), undrain)
}

// settle waits until a change of a backend's endpoints is in force, and tells what is
// not.
func (a *api) settle(ctx context.Context, seq uint64, backend store.ID) []string {
	result := &store.Result{Seq: seq, Changes: []store.Change{{ID: backend}}}
	a.await(ctx, result)
	return result.Warnings
}

// announced are the registrations of a snapshot, by backend and address.
func (a *api) announced(snapshot *store.Snapshot) map[store.ID]map[string]*adminv1.Registration {
	all := map[store.ID]map[string]*adminv1.Registration{}
	for _, o := range snapshot.All(store.RegistrationKind) {
		m := a.registrationMessage(o)
		of := store.ID{Kind: store.BackendKind, Namespace: m.GetBackend().GetNamespace(), Name: m.GetBackend().GetName()}
		if all[of] == nil {
			all[of] = map[string]*adminv1.Registration{}
		}
		all[of][m.GetAddress()] = m
	}
	return all
}

// registrationMessage is a registration as it is kept, and how long it will be.
func (a *api) registrationMessage(o *store.Object) *adminv1.Registration {
	r, ok := o.Resource.(*store.Registration)
	if !ok {
		return nil
	}
	kept := a.keepers.keeps(o.ID)
	m := &adminv1.Registration{
		Ref:     refMessage(o.ID),
		Backend: &adminv1.Ref{Kind: store.BackendKind, Namespace: o.ID.Namespace, Name: r.Spec.Backend},
		Address: r.Spec.Address, Weight: r.Spec.Weight, Zone: r.Spec.Zone, Version: r.Spec.Version,
		Lease: durationpb.New(time.Duration(r.Spec.Lease)), Kept: kept, Registered: stamp(o.Created),
	}
	if a.parts.Leases != nil && !kept {
		m.Expires = stamp(a.parts.Leases.Expires(o.ID))
	}
	return m
}

// registrationChange is one change of a registration for the audit log, as the history
// has it.
func registrationChange(before, after *store.Object) *adminv1.Change {
	c := &store.Change{Action: store.ActionUpdate, Before: before, After: after}
	of := after
	switch {
	case before == nil:
		c.Action = store.ActionCreate
	case after == nil:
		c.Action, of = store.ActionDelete, before
	}
	c.ID = of.ID
	room := manifests{room: maxWritten}
	m, err := room.changeMessage(c)
	if err != nil { // what was kept can be written
		return &adminv1.Change{Action: c.Action, Ref: refMessage(c.ID)}
	}
	return m
}

// errGone is told to the keeper of a registration that somebody else has ended.
var errGone = errors.New("the registration was ended by somebody else: it was deregistered, deleted, or a backup was restored")

// errClosing is told to the keepers of registrations when the door closes.
var errClosing = refuse(connect.CodeUnavailable, "the admin port is closing")

// Keep holds a registration as long as the stream.
func (s *backendService) Keep(ctx context.Context, req *connect.Request[adminv1.KeepRequest], stream *connect.ServerStream[adminv1.KeepResponse]) error {
	select {
	case s.keeps <- struct{}{}:
		defer func() { <-s.keeps }()
	default:
		return refuse(connect.CodeResourceExhausted, "%d registrations are kept by streams, which is the limit; use Register and Renew", maxKeeps)
	}
	wish, err := s.announcement(ctx, req.Msg.GetRegistration())
	if err != nil {
		return err
	}
	keeper, done, err := s.keepers.keep(ctx, wish)
	if err != nil {
		return err
	}
	defer s.part(ctx, keeper, wish)
	if done.renewed() {
		noteNothing(ctx)
	} else {
		s.noteDone(ctx, "Register", wish, wish.by.Reason, done.changes())
	}
	first := &adminv1.KeepResponse{
		Warnings:     s.warnings(ctx, wish),
		Registration: s.registrationMessage(done.after),
		Peers:        s.confirm(ctx, wish.wait, done.stored()),
	}
	return s.beat(ctx, wish, first, stream)
}

// beat sends signs of life until the client goes, the door closes or the registration
// is gone. It writes nothing to the disk.
func (s *backendService) beat(ctx context.Context, wish *announcement, next *adminv1.KeepResponse, stream *connect.ServerStream[adminv1.KeepResponse]) error {
	for {
		if err := stream.Send(next); err != nil {
			return errors.Join(err, gone(ctx))
		}
		timer := time.NewTimer(min(next.GetRegistration().GetLease().AsDuration()/3, aliveEvery))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-s.closing.Done():
			timer.Stop()
			return errClosing
		case <-timer.C:
		}
		o, found := s.store.Snapshot().Get(wish.id)
		if !found || wish.from.may(o) != nil {
			return refuse(connect.CodeAborted, "%w", errGone)
		}
		next = &adminv1.KeepResponse{Registration: s.registrationMessage(o)}
	}
}

// gone waits a moment for the reason why nothing can be sent: the stream ends before
// its context does.
func gone(ctx context.Context) error {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// part ends a keeper, and the registration when the client itself has ended the stream.
func (s *backendService) part(ctx context.Context, k *keeper, wish *announcement) {
	by := wish.by
	by.Reason = store.StreamEnded
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), programTime)
	defer cancel()
	change, err := s.keepers.part(ending, k, cancelledByClient(ctx), by)
	if err != nil {
		s.log.Error("registration not ended, its lease will", "registration", k.id.String(), "error", err)
	}
	if change != nil {
		s.noteDone(ctx, "Deregister", wish, by.Reason, []*adminv1.Change{change})
	}
}

// noteDone writes the line of what a stream did, as the calls have it that do the same.
func (s *backendService) noteDone(ctx context.Context, action string, wish *announcement, reason string, changes []*adminv1.Change) {
	s.access.noteDone(ctx, &adminv1.AuditEntry{
		Action: action, Reason: reason, Refs: []*adminv1.Ref{refMessage(wish.backend)}, Changes: changes,
	})
}

// cancelledByClient tells whether a request has ended because the client said so, and
// not because its connection broke. Those of HTTP/2 know the difference, and say so by
// the cause of their context.
func cancelledByClient(ctx context.Context) bool {
	var cause interface{ Cancelled() bool }
	return errors.As(context.Cause(ctx), &cause) && cause.Cancelled()
}
