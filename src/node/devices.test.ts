import { afterAll, describe, expect, it } from "vitest";
import { type FakeCuda, fakeCuda, missingFakes } from "../../test/fake-cuda/card.js";
import { requireCards } from "./devices.js";

const made = await fakeCuda();

function tests({ reset, remove }: FakeCuda): void {
  afterAll(remove);

  it("takes cards that are there", async () => {
    reset({ cards: 3 });
    await requireCards([2, 0], "cuda");
  });

  it("names the first that is not", async () => {
    reset({ cards: 2 });
    await expect(requireCards([0, 5, 2], "cuda")).rejects.toMatchObject({
      kind: "usage",
      message: "--devices: expected cards from 0 to 1, got 5",
    });
  });

  it("refuses an engine that takes one card", async () => {
    await expect(requireCards([0, 1], "webgpu")).rejects.toMatchObject({
      kind: "usage",
      message: expect.stringContaining("--devices on the webgpu engine"),
    });
  });
}

if ("fake" in made) describe("the cards of a job on several", () => tests(made.fake));
else
  it("says why there is no card to pretend", () => {
    expect(made.reason).toMatch(missingFakes);
    console.log(`The cards of a job were not tested without a card: ${made.reason}`);
  });
