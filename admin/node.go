package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// nodeService answers sluice.admin.v1.NodeService.
type nodeService struct{ *api }

var _ adminv1.NodeServiceHandler = (*nodeService)(nil)

// Status tells who this node is and how it is.
func (s *nodeService) Status(context.Context, *connect.Request[adminv1.StatusRequest]) (*connect.Response[adminv1.StatusResponse], error) {
	snapshot := s.store.Snapshot()
	programmed, faulty := s.gateway.Programmed()
	resp := &adminv1.StatusResponse{
		Version: s.parts.Version, Node: s.store.Node(), Started: stamp(s.started),
		Listen: s.gateway.Addr(), Admin: s.addr.String(),
		Sequence: snapshot.Seq(), Programmed: programmed,
		Ready: true, Objects: map[string]uint32{}, Digest: snapshot.Digest(),
	}
	for _, kind := range store.Kinds() {
		resp.Objects[kind] = uint32(snapshot.Len(kind))
	}
	if s.parts.Ready != nil {
		if err := s.parts.Ready(); err != nil {
			resp.Ready = false
			resp.Problems = append(resp.Problems, "not ready: "+err.Error())
		}
	}
	if recovery := s.store.Recovery(); recovery != "" {
		resp.Problems = append(resp.Problems, recovery)
	}
	resp.Conflicts = uint32(len(contested(snapshot)))
	if s.parts.Problems != nil {
		resp.Problems = append(resp.Problems, s.parts.Problems()...)
	}
	if s.parts.Cluster != nil {
		resp.Cluster = clusterStatus(s.parts.Cluster)
	}
	resp.Problems = append(resp.Problems, problemsOf(faulty)...)
	return connect.NewResponse(resp), nil
}

// problemsOf is what is wrong with objects, in sentences and in order.
func problemsOf(faulty map[store.ID]error) []string {
	problems := make([]string, 0, len(faulty))
	for id, err := range faulty {
		problems = append(problems, fmt.Sprintf("%s is not in force: %v", id, err))
	}
	slices.Sort(problems)
	const most = 20
	if more := len(problems) - most; more > 0 {
		problems = append(problems[:most], fmt.Sprintf("and %d more objects are not in force", more))
	}
	return problems
}

// chunkSize is how much of a copy one message has, bytes.
const chunkSize = 64 << 10

// errCopying is said to whoever comes while another copies.
var errCopying = errors.New("another backup or restore is under way; try again when it has ended")

// copyPlace takes the place of a Backup or a Restore.
func (a *api) copyPlace() (leave func(), err error) {
	select {
	case a.copies <- struct{}{}:
		return func() { <-a.copies }, nil
	default:
		return nil, connect.NewError(connect.CodeResourceExhausted, errCopying)
	}
}

// Backup makes a copy and then streams it, so that a client that is slow keeps no
// transaction of the store open.
func (s *nodeService) Backup(ctx context.Context, _ *connect.Request[adminv1.BackupRequest], stream *connect.ServerStream[adminv1.BackupResponse]) error {
	leave, err := s.copyPlace()
	if err != nil {
		return err
	}
	defer leave()
	file, err := s.scratch("backup")
	if err != nil {
		return err
	}
	defer discard(file)
	if err := s.store.Backup(file); err != nil {
		return fmt.Errorf("copy the store: %w", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("copy the store: %w", err)
	}
	chunk := make([]byte, chunkSize)
	for {
		if err := errors.Join(ctx.Err(), s.closing.Err()); err != nil {
			return err
		}
		n, err := io.ReadFull(file, chunk)
		if n > 0 {
			if err := stream.Send(&adminv1.BackupResponse{Chunk: chunk[:n]}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the copy: %w", err)
		}
	}
}

// scratch is a file for a copy of the store, beside the store: that is where there
// has to be room for one.
func (a *api) scratch(what string) (*os.File, error) {
	file, err := os.CreateTemp(a.dataDir, what+"-*.tmp")
	if err != nil {
		return nil, fmt.Errorf("make room for a %s: %w", what, err)
	}
	return file, nil
}

func discard(file *os.File) {
	file.Close()
	os.Remove(file.Name())
}

// Restore takes a copy in, and makes the objects those that it has.
func (s *nodeService) Restore(ctx context.Context, stream *connect.ClientStream[adminv1.RestoreRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	leave, err := s.copyPlace()
	if err != nil {
		return nil, err
	}
	defer leave()
	file, err := s.scratch("restore")
	if err != nil {
		return nil, err
	}
	defer discard(file)
	asked, err := receiveCopy(stream, file)
	if err != nil {
		return nil, err
	}
	if err := checkWait(asked.GetWait()); err != nil {
		return nil, err
	}
	by, err := author(ctx, asked.GetReason())
	if err != nil {
		return nil, err
	}
	result, err := s.store.Restore(ctx, file.Name(), by, asked.GetDryRun())
	if err != nil {
		return nil, unreadable(err)
	}
	var resp *connect.Response[adminv1.WriteResponse]
	if asked.GetDryRun() {
		resp, err = s.written(result, maxWritten)
	} else {
		resp, err = s.kept(ctx, asked, result)
	}
	if err == nil {
		NoteChanges(ctx, resp.Msg.GetChanges())
	}
	return resp, err
}

// receiveCopy writes what comes to a file, and returns the first message without its
// chunk: that says why, and how.
func receiveCopy(stream *connect.ClientStream[adminv1.RestoreRequest], file io.Writer) (first *adminv1.RestoreRequest, err error) {
	empty := true
	for stream.Receive() {
		m := stream.Msg()
		if first == nil {
			first = &adminv1.RestoreRequest{Reason: m.GetReason(), DryRun: m.GetDryRun(), Wait: m.GetWait()}
		}
		empty = empty && len(m.GetChunk()) == 0
		if _, err := io.Copy(file, bytes.NewReader(m.GetChunk())); err != nil {
			return nil, fmt.Errorf("keep the backup: %w", err)
		}
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	if empty {
		return nil, store.Faults{{Field: "chunk", Message: "the backup is empty"}}
	}
	return first, nil
}

// unreadable says of a copy that cannot be read that it is the client's.
func unreadable(err error) error {
	if store.Damaged(err) {
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("read the backup: %w", err))
	}
	return err
}
