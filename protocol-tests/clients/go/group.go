package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	groupPartitions = 6
	groupRecords    = 600
)

// member reads as a member of the group until it is stopped, and counts the values that it read.
type member struct {
	client *kgo.Client
	done   sync.WaitGroup
	lock   sync.Mutex
	values map[string]int
}

func (s *scenario) join(group, topic string, balancer kgo.GroupBalancer) *member {
	m := &member{values: map[string]int{}}
	m.client = s.client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.Balancers(balancer),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(6*time.Second),
		kgo.HeartbeatInterval(200*time.Millisecond), kgo.AutoCommitMarks(), kgo.BlockRebalanceOnPoll())
	m.done.Add(1)
	go func() {
		defer m.done.Done()
		for {
			fetches := m.client.PollFetches(s.ctx)
			if fetches.IsClientClosed() {
				return
			}
			check(fetches.Err(), "fetch "+topic)
			m.lock.Lock()
			fetches.EachRecord(func(record *kgo.Record) { m.values[string(record.Value)]++ })
			m.lock.Unlock()
			m.client.MarkCommitRecords(fetches.Records()...)
			m.client.AllowRebalance()
		}
	}()
	return m
}

// leave commits the offsets of the read records and leaves the group.
func (s *scenario) leave(m *member) {
	check(m.client.CommitMarkedOffsets(s.ctx), "commit")
	m.client.CloseAllowingRebalance()
	m.done.Wait()
}

func (m *member) seen() int {
	m.lock.Lock()
	defer m.lock.Unlock()
	return len(m.values)
}

// eventually repeats yes until it returns true.
func (s *scenario) eventually(what string, yes func() bool) {
	for !yes() {
		select {
		case <-s.ctx.Done():
			fail("not in time: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// group: two members share the partitions; one leaves and the other gets all of them; a third one continues from the
// committed offsets; eager and cooperative.
func group(s *scenario) {
	for _, balancer := range []kgo.GroupBalancer{kgo.RangeBalancer(), kgo.CooperativeStickyBalancer()} {
		name := "group-" + balancer.ProtocolName()
		s.createTopic(name, groupPartitions)
		producer := s.client(kgo.DefaultProduceTopic(name), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		send := func(from, count int) {
			var records []*kgo.Record
			for i := from; i < from+count; i++ {
				records = append(records, &kgo.Record{Partition: int32(i % groupPartitions), Value: fmt.Appendf(nil, "%d", i)})
			}
			check(producer.ProduceSync(s.ctx, records...).FirstErr(), "produce "+name)
		}
		send(0, groupRecords)

		admin := kadm.NewClient(producer)
		first := s.join(name, name, balancer)
		s.eventually("the first member reads everything", func() bool { return first.seen() == groupRecords })
		second := s.join(name, name, balancer)
		s.eventually("two members have three partitions each", func() bool {
			described, err := admin.DescribeGroups(s.ctx, name)
			check(err, "describe the group")
			group := described[name]
			check(group.Err, "describe the group")
			if group.State != "Stable" || len(group.Members) != 2 {
				return false
			}
			for _, member := range group.Members {
				assigned, ok := member.Assigned.AsConsumer()
				if !ok || len(assigned.Topics) != 1 || len(assigned.Topics[0].Partitions) != groupPartitions/2 {
					return false
				}
			}
			return true
		})
		before := first.seen()
		send(groupRecords, groupRecords)
		s.eventually("both members read on", func() bool {
			return second.seen() >= groupRecords/2 && first.seen() >= before+groupRecords/2
		})
		s.leave(first)
		send(2*groupRecords, groupRecords)
		s.eventually("the one that stays reads everything", func() bool { return second.seen() >= groupRecords/2+groupRecords })
		s.leave(second)

		offsets, err := admin.FetchOffsets(s.ctx, name)
		check(err, "fetch committed offsets")
		for partition := range int32(groupPartitions) {
			offset, ok := offsets.Lookup(name, partition)
			expect(ok, true, fmt.Sprintf("partition %d has a committed offset", partition))
			expect(offset.At, 3*groupRecords/groupPartitions, fmt.Sprintf("committed offset of partition %d", partition))
		}
		third := s.join(name, name, balancer)
		send(3*groupRecords, groupPartitions)
		s.eventually("a third member goes on at the committed offsets", func() bool { return third.seen() == groupPartitions })
		s.leave(third)
		producer.Close()
	}
}
