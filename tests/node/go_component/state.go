package main

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dapr/components-contrib/state"
	"google.golang.org/grpc/codes"
)

type entry struct {
	value   []byte
	etag    string
	expires time.Time
}

// store is a state.Store with transactions, etags and time to live; it has no queries.
type store struct {
	life
	state.BulkStore
	mu      sync.Mutex
	entries map[string]entry
	version int
}

func newStore() *store {
	s := &store{entries: map[string]entry{}}
	s.BulkStore = state.NewDefaultBulkStore(s)
	return s
}

func (s *store) Init(_ context.Context, metadata state.Metadata) error {
	return s.begin(metadata.Properties)
}

func (s *store) Features() []state.Feature {
	return []state.Feature{state.FeatureETag, state.FeatureTransactional, state.FeatureTTL, "OF_TOMORROW"}
}

func (s *store) GetComponentMetadata() map[string]string { return nil }

func (s *store) Ping(context.Context) error { return s.check() }

func (s *store) Get(_ context.Context, request *state.GetRequest) (*state.GetResponse, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.current(request.Key)
	if !ok {
		return &state.GetResponse{}, nil
	}
	metadata := map[string]string{}
	if !found.expires.IsZero() {
		metadata[state.GetRespMetaKeyTTLExpireTime] = found.expires.UTC().Format(time.RFC3339)
	}
	return &state.GetResponse{Data: found.value, ETag: &found.etag, Metadata: metadata}, nil
}

func (s *store) Set(_ context.Context, request *state.SetRequest) error {
	if err := s.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.admit(request.Key, request.ETag, request.Options.Concurrency, true); err != nil {
		return err
	}
	return s.put(request)
}

func (s *store) Delete(_ context.Context, request *state.DeleteRequest) error {
	if err := s.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.admit(request.Key, request.ETag, request.Options.Concurrency, false); err != nil {
		return err
	}
	delete(s.entries, request.Key)
	return nil
}

// Multi is all or nothing: it works on a copy.
func (s *store) Multi(_ context.Context, request *state.TransactionalStateRequest) error {
	if err := s.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := make(map[string]entry, len(s.entries))
	for key, value := range s.entries {
		before[key] = value
	}
	for _, operation := range request.Operations {
		if err := s.apply(operation); err != nil {
			s.entries = before
			return err
		}
	}
	return nil
}

func (s *store) apply(operation state.TransactionalStateOperation) error {
	switch one := operation.(type) {
	case state.SetRequest:
		if err := s.admit(one.Key, one.ETag, one.Options.Concurrency, true); err != nil {
			return err
		}
		return s.put(&one)
	case state.DeleteRequest:
		if err := s.admit(one.Key, one.ETag, one.Options.Concurrency, false); err != nil {
			return err
		}
		delete(s.entries, one.Key)
	}
	return nil
}

func (s *store) current(key string) (entry, bool) {
	found, ok := s.entries[key]
	if ok && !found.expires.IsZero() && !time.Now().Before(found.expires) {
		delete(s.entries, key)
		return entry{}, false
	}
	return found, ok
}

func (s *store) admit(key string, etag *string, concurrency string, writes bool) error {
	found, ok := s.current(key)
	switch {
	case etag != nil && *etag != "":
		if strings.HasPrefix(*etag, "!") {
			return etagError(codes.InvalidArgument, "no etag of this store looks like this")
		}
		if !ok || found.etag != *etag {
			return etagError(codes.FailedPrecondition, "another version is stored")
		}
	case writes && ok && concurrency == state.FirstWrite:
		return etagError(codes.FailedPrecondition, "there is a value already")
	}
	return nil
}

func (s *store) put(request *state.SetRequest) error {
	value, _ := request.Value.([]byte)
	s.version++
	written := entry{value: value, etag: strconv.Itoa(s.version)}
	if text := request.Metadata["ttlInSeconds"]; text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		if seconds > 0 {
			written.expires = time.Now().Add(time.Duration(seconds) * time.Second)
		}
	}
	s.entries[request.Key] = written
	return nil
}
