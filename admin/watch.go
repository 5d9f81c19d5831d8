package admin

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// Watch sends what is, when asked, and then what changes, until the client goes or
// the door closes. It pulls: a client that is slow makes its own Watch slow, and
// holds nothing but a place in the history. One that takes nothing for a while is cut
// off by pacedWriter, one that has fallen out of the history by OUT_OF_RANGE.
func (s *resourceService) Watch(ctx context.Context, req *connect.Request[adminv1.WatchRequest], stream *connect.ServerStream[adminv1.WatchResponse]) error {
	if err := checkKind("kind", req.Msg.GetKind()); err != nil {
		return err
	}
	select {
	case s.watches <- struct{}{}:
		defer func() { <-s.watches }()
	default:
		return refuse(connect.CodeResourceExhausted, "%d watches are open, which is the limit", maxWatches)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()

	w := &watch{kind: req.Msg.GetKind(), stream: stream}
	after := req.Msg.GetAfter()
	if req.Msg.GetInitial() {
		snapshot := s.store.Snapshot()
		after = snapshot.Seq()
		if err := w.sendAll(ctx, snapshot); err != nil {
			return err
		}
	}
	if err := w.stream.Send(nil); err != nil { // the header: the client knows that it watches
		return err
	}
	err := w.follow(ctx, s.store.Watch(after))
	if s.closing.Err() != nil {
		return refuse(connect.CodeUnavailable, "the admin port is closing")
	}
	return err
}

// watch is one Watch under way.
type watch struct {
	kind   string // empty means all
	stream *connect.ServerStream[adminv1.WatchResponse]
}

// sendAll sends every object as it is, and then that these were all.
func (w *watch) sendAll(ctx context.Context, snapshot *store.Snapshot) error {
	for _, o := range snapshot.All(w.kind) {
		if err := ctx.Err(); err != nil {
			return err
		}
		room := manifests{room: maxListed}
		m, err := room.objectMessage(o)
		if err != nil {
			return err
		}
		if err := w.stream.Send(&adminv1.WatchResponse{
			Kind: adminv1.WatchResponse_KIND_OBJECT, Object: m, Sequence: snapshot.Seq(),
		}); err != nil {
			return err
		}
	}
	return w.stream.Send(&adminv1.WatchResponse{Kind: adminv1.WatchResponse_KIND_SYNCED, Sequence: snapshot.Seq()})
}

// follow sends each change, and a sign of life when nothing has been sent for a while.
func (w *watch) follow(ctx context.Context, changes *store.Watcher) error {
	var seq uint64 // of the last change, of whatever kind
	due := time.Now().Add(aliveEvery)
	for {
		waiting, cancel := context.WithDeadline(ctx, due)
		c, err := changes.Next(waiting)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && (w.kind == "" || w.kind == c.ID.Kind):
			seq, due = c.Seq, time.Now().Add(aliveEvery)
			err = w.sendChange(&c)
		case err == nil:
			seq = c.Seq
		case errors.Is(err, context.DeadlineExceeded):
			err = nil
		}
		if err == nil && !time.Now().Before(due) {
			due = time.Now().Add(aliveEvery)
			err = w.stream.Send(&adminv1.WatchResponse{Kind: adminv1.WatchResponse_KIND_ALIVE, Sequence: seq})
		}
		if err != nil {
			return err
		}
	}
}

func (w *watch) sendChange(c *store.Change) error {
	room := manifests{room: maxListed}
	m, err := room.changeMessage(c)
	if err != nil {
		return err
	}
	return w.stream.Send(&adminv1.WatchResponse{Kind: adminv1.WatchResponse_KIND_CHANGE, Change: m, Sequence: c.Seq})
}
