package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// refuse is an error for the client alone: the code and what to do.
func refuse(code connect.Code, format string, args ...any) error {
	return connect.NewError(code, fmt.Errorf(format, args...))
}

// translator is the one place where an error of the services becomes a code, a
// message to the client, its detail, and a line in the log. What nobody foresaw is
// ours to know only.
type translator struct{ log *slog.Logger }

// WrapUnary implements connect.Interceptor.
func (f translator) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		resp, err := next(ctx, req)
		return resp, f.translate(ctx, req.Spec(), err)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (f translator) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (f translator) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return f.translate(ctx, conn.Spec(), next(ctx, conn))
	}
}

func (f translator) translate(ctx context.Context, spec connect.Spec, err error) error {
	if err == nil {
		return nil
	}
	var told *connect.Error
	if !errors.As(err, &told) {
		told = tell(err)
	}
	level := slog.LevelDebug // said to the one who asked
	if told.Code() == connect.CodeInternal {
		level = slog.LevelError
	}
	f.log.Log(ctx, level, "admin request refused", "procedure", spec.Procedure, "code", told.Code().String(), "error", err)
	return told
}

var errInternal = errors.New("internal error; the log of the node says more")

// tell is the error that the client gets.
func tell(err error) *connect.Error {
	var (
		faults   store.Faults
		conflict *store.ConflictError
		owned    *store.OwnedError
		missing  *store.NotFoundError
	)
	switch {
	case errors.As(err, &faults):
		return detailed(connect.CodeInvalidArgument, summary(faults), faultsMessage(faults))
	case errors.As(err, &conflict):
		return detailed(connect.CodeAborted, err, conflictMessage(conflict))
	case errors.As(err, &owned):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	case errors.As(err, &missing):
		return connect.NewError(connect.CodeNotFound, err)
	case errors.Is(err, ErrUnknownMethods):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	case errors.Is(err, store.ErrCompacted):
		return connect.NewError(connect.CodeOutOfRange, err)
	case errors.Is(err, store.ErrFull):
		return connect.NewError(connect.CodeResourceExhausted, err)
	case errors.Is(err, store.ErrClosed):
		return connect.NewError(connect.CodeUnavailable, err)
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	}
	return connect.NewError(connect.CodeInternal, errInternal)
}

// detailed adds the detail that says more than the message.
func detailed(code connect.Code, err error, detail proto.Message) *connect.Error {
	e := connect.NewError(code, err)
	if d, detailErr := connect.NewErrorDetail(detail); detailErr == nil {
		e.AddDetail(d)
	}
	return e
}

func faultsMessage(faults store.Faults) *adminv1.Faults {
	m := &adminv1.Faults{}
	for _, f := range faults {
		m.Faults = append(m.Faults, &adminv1.Fault{
			File: f.File, Line: uint32(f.Line), Column: uint32(f.Column), Field: f.Field, Message: f.Message,
		})
	}
	return m
}

func conflictMessage(c *store.ConflictError) *adminv1.Conflict {
	m := &adminv1.Conflict{Expected: c.Expected}
	if c.Current != nil {
		room := manifests{room: maxDetail}
		m.Current, _ = room.objectMessage(c.Current)
	}
	return m
}

// maxDetail bounds the manifest in a Conflict, bytes: in gRPC details travel in a
// trailer.
const maxDetail = 64 << 10

// maxTold is how many faults the message repeats; the detail has all.
const maxTold = 10

// summary is what people read who do not look at details.
func summary(faults store.Faults) error {
	if len(faults) <= maxTold {
		return faults
	}
	return fmt.Errorf("%w\nand %d more", faults[:maxTold], len(faults)-maxTold)
}

// recovered is what a client hears of a panic.
func recovered(log *slog.Logger) connect.HandlerOption {
	return connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, p any) error {
		log.Error("admin request panicked", "procedure", spec.Procedure, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		return connect.NewError(connect.CodeInternal, errInternal)
	})
}
